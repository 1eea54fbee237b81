use super::*;

const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

/// A literal field with an indexed name.
fn literal(first: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![first];
    match value.len().checked_sub(0x7f) {
        None => field.push(u8::try_from(value.len()).unwrap()),
        Some(rest) => {
            field.extend([0x7f, u8::try_from(rest & 0x7f).unwrap() | 0x80, u8::try_from(rest >> 7).unwrap()]);
        }
    }
    field.extend_from_slice(value);
    field
}

/// A literal field with a literal name.
fn spelled(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = literal(0x40, name);
    field.extend(&literal(0, value)[1..]);
    field
}

/// A block with an authority between fields of every other form.
fn block(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x3f, 0xe1, 0x1f, 0x83, 0x86];
    block.extend(literal(0x04, b"/a%b/c"));
    block.extend(literal(0x41, authority));
    // A new name with its value; a name of the dynamic table; an indexed field far away.
    block.extend([0x40, 5, b'x', b'-', b'%', b'/', b'a', 3, b'/', b'%', b'/']);
    block.extend([0x7f, 0x81, 0x01, 2, b'%', b'/']);
    block.extend([0x0f, 0x81, 0x01, 2, b'%', b'/']);
    block.extend([0xff, 0x80, 0x01]);
    // The name spelled out, and names that only begin or end like it.
    block.extend(spelled(b":authority", authority));
    block.extend(spelled(b":authoritys", b"%/"));
    block.extend(spelled(b"authority", b"%/"));
    block.extend(spelled(b":authorit", b"%/"));
    block.extend(spelled(b"", b"%/"));
    // Huffman code, and an authority that is never to be indexed.
    block.extend([0x41, 0x82, b'%', b'/']);
    block.extend(literal(0x11, authority));
    block
}

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, &[]));
    bytes
}

/// The same bytes whichever pieces they come in.
fn passed(bytes: &[u8]) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    Frames::default().pass(&mut whole);
    for size in [1, 2, 7, 30] {
        let (mut pieces, mut frames) = (bytes.to_vec(), Frames::default());
        pieces.chunks_mut(size).for_each(|piece| frames.pass(piece));
        assert_eq!(pieces, whole, "pieces of {size}");
    }
    whole
}

#[test]
fn only_authorities_change_and_only_what_cannot_stand_in_one() {
    let long = b"%2F".repeat(100);
    let changed = b"-2F".repeat(100);
    for (authority, expected) in [
        (&b"%2Ftmp%2FXDS"[..], &b"-2Ftmp-2FXDS"[..]),
        (b"/run/a b.sock", b"-run-a-b.sock"),
        (b"localhost", b"localhost"),
        (b"[fd00::1]:15012", b"[fd00::1]:15012"),
        (b"", b""),
        (&long, &changed),
    ] {
        let request = |authority: &[u8]| {
            let mut bytes = preface();
            bytes.extend(frame(HEADERS, END_HEADERS, &block(authority)));
            bytes.extend(frame(0, 0, b"\x41\x03/%/ data is nobody's business"));
            bytes.extend(frame(HEADERS, END_HEADERS, &literal(0x41, authority)));
            bytes
        };
        assert_eq!(passed(&request(authority)), request(expected));
    }
}

#[test]
fn padding_priority_and_continuation_are_followed() {
    let (before, after) = (block(b"/a/b"), block(b"-a-b"));
    let request = |block: &[u8]| {
        let mut bytes = preface();
        let mut payload = vec![3, 0, 0, 0, 0, 16];
        payload.extend_from_slice(&block[..20]);
        payload.extend([0x41, 1, b'/']);
        bytes.extend(frame(HEADERS, PADDED | PRIORITY, &payload));
        bytes.extend(frame(CONTINUATION, 0, &block[20..33]));
        bytes.extend(frame(CONTINUATION, 0, &[]));
        bytes.extend(frame(CONTINUATION, END_HEADERS, &block[33..]));
        bytes.extend(frame(HEADERS, END_HEADERS, &[]));
        bytes.extend(frame(HEADERS, PADDED | END_HEADERS, &[200]));
        bytes.extend(frame(HEADERS, END_HEADERS, block));
        bytes
    };
    assert_eq!(passed(&request(&before)), request(&after));
}

#[test]
fn no_bytes_can_break_it() {
    let mut state = 1u32;
    for _ in 0..2000 {
        let mut bytes = preface();
        for _ in 0..200 {
            // A generator of its own, so that a failure can be repeated.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push(state.to_be_bytes()[0] & if state & 0x100 == 0 { 0xff } else { 0x0f });
        }
        passed(&bytes);
    }
}
