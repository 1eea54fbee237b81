//! Whether a point is on one of NIST's curves: `y² = x³ - 3x + b` modulo `p`.

/// Of the least significant digit first; a sum of two numbers below `p` fits.
type Number = [u32; 17];

/// A curve.
pub(super) struct Curve {
    p: Number,
    b: Number,
}

impl Curve {
    /// A curve by its name in keys.
    pub(super) fn new(name: &str) -> Option<Self> {
        let (p, b) = match name {
            "P-256" => (
                "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
                "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
            ),
            "P-384" => (
                "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe\
                 ffffffff0000000000000000ffffffff",
                "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a\
                 c656398d8a2ed19d2a85c8edd3ec2aef",
            ),
            "P-521" => (
                "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                 ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                 ffff",
                "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef1\
                 09e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b50\
                 3f00",
            ),
            _ => return None,
        };
        Some(Self { p: hex(p)?, b: hex(b)? })
    }

    /// Whether a point, each coordinate with its highest byte first, is on it.
    pub(super) fn has(&self, x: &[u8], y: &[u8]) -> bool {
        let (Some(x), Some(y)) = (number(x), number(y)) else { return false };
        if !is_less(&x, &self.p) || !is_less(&y, &self.p) {
            return false;
        }
        let cube = self.multiply(&self.multiply(&x, &x), &x);
        let negative = subtract(&self.p, &x);
        let negative = if is_less(&negative, &self.p) { negative } else { [0; 17] };
        let linear = self.add(&self.add(&negative, &negative), &negative);
        self.multiply(&y, &y) == self.add(&self.add(&cube, &linear), &self.b)
    }

    fn add(&self, one: &Number, other: &Number) -> Number {
        let mut sum = [0; 17];
        let mut carry = 0;
        for ((digit, one), other) in sum.iter_mut().zip(one).zip(other) {
            let total = u64::from(*one) + u64::from(*other) + carry;
            *digit = total as u32;
            carry = total >> 32;
        }
        if is_less(&sum, &self.p) { sum } else { subtract(&sum, &self.p) }
    }

    fn multiply(&self, one: &Number, other: &Number) -> Number {
        let mut product = [0; 17];
        for digit in other.iter().rev() {
            for bit in (0..32).rev() {
                product = self.add(&product, &product);
                if digit >> bit & 1 == 1 {
                    product = self.add(&product, one);
                }
            }
        }
        product
    }
}

fn is_less(one: &Number, other: &Number) -> bool {
    one.iter().rev().lt(other.iter().rev())
}

/// The difference of a number and one that is not greater.
fn subtract(one: &Number, other: &Number) -> Number {
    let mut difference = [0; 17];
    let mut borrow = false;
    for ((digit, one), other) in difference.iter_mut().zip(one).zip(other) {
        let (partial, first) = one.overflowing_sub(*other);
        let (partial, second) = partial.overflowing_sub(borrow.into());
        *digit = partial;
        borrow = first || second;
    }
    difference
}

/// A number of which the first byte is the highest; `None` when it is too large.
fn number(bytes: &[u8]) -> Option<Number> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut number = [0; 17];
    for (index, byte) in bytes[zeros..].iter().rev().enumerate() {
        *number.get_mut(index / 4)? |= u32::from(*byte) << (index % 4 * 8);
    }
    Some(number)
}

fn hex(text: &str) -> Option<Number> {
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
    number(&bytes.collect::<Option<Vec<u8>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generators of the curves (FIPS 186-4, D.1.2).
    const POINTS: [(&str, &str, &str); 3] = [
        (
            "P-256",
            "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
        ),
        (
            "P-384",
            "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
            "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
        ),
        (
            "P-521",
            "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
            "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650",
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn generators_are_on_their_curves() {
        for (name, x, y) in POINTS {
            let curve = Curve::new(name).unwrap();
            let (x, y) = (bytes(x), bytes(y));
            assert!(curve.has(&x, &y), "{name}");
            assert!(!curve.has(&y, &x), "{name}");
            assert!(!curve.has(&x, &[]), "{name}");
            assert!(!curve.has(&[0xff; 66], &y) && !curve.has(&[0xff; 100], &y), "{name}");
            let other: Vec<u8> = y.iter().enumerate().map(|(i, b)| if i == 5 { b ^ 1 } else { *b }).collect();
            assert!(!curve.has(&x, &other), "{name}");
        }
    }
}
