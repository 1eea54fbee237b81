use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::tests::{gzip, module, tar};
use super::*;

async fn receive(dir: &Path, form: Form, bytes: &[u8], max: u64) -> Result<Module, Error> {
    let download = Download::begin(dir.join("d"), form, max);
    for chunk in bytes.chunks(1000) {
        if !download.add(Bytes::copy_from_slice(chunk)).await {
            break;
        }
    }
    download.finish().await
}

/// Names of all files below.
fn files(dir: &Path) -> usize {
    fs::read_dir(dir.join("d")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn modules_are_found_in_archives() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = module(5000);
    let archive = tar(&[("a.wasm", &wasm), ("b", b"other")]);
    let layer = tar(&[("etc/x", b"other"), ("./plugin.wasm", &wasm)]);
    for (form, bytes) in [
        (Form::Any, wasm.clone()),
        (Form::Bare, wasm.clone()),
        (Form::Any, gzip(&wasm)),
        (Form::Any, archive.clone()),
        (Form::Any, gzip(&archive)),
        (Form::Any, gzip(&gzip(&archive))),
        (Form::Layer, gzip(&layer)),
    ] {
        let got = receive(dir.path(), form, &bytes, 1 << 20).await.unwrap();
        assert_eq!((&got.raw, &got.sha256), (&sha256(&bytes), &sha256(&wasm)));
        let place = dir.path().join("kept.wasm");
        got.keep(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), wasm);
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(files(dir.path()), 0);
    }
}

#[test]
fn a_slow_download_takes_no_thread_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let _slow = Download::begin(dir.path().join("d"), Form::Any, 1 << 20);
        let other = tokio::task::spawn_blocking(|| 7);
        let answer = tokio::time::timeout(std::time::Duration::from_secs(60), other).await;
        assert_eq!(answer.unwrap().unwrap(), 7);
    });
}

#[tokio::test]
async fn what_is_no_module_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = module(10);
    let broken = &gzip(&module(5000))[..40];
    for (form, bytes) in [
        (Form::Any, b"<html>".to_vec()),
        (Form::Any, b"\0asm".to_vec()),
        (Form::Any, Vec::new()),
        (Form::Any, gzip(b"text")),
        (Form::Any, broken.to_vec()),
        (Form::Bare, gzip(&wasm)),
        (Form::Layer, wasm.clone()),
        (Form::Layer, gzip(&tar(&[("other.wasm", &wasm)]))),
        (Form::Layer, gzip(&tar(&[("plugin.wasm", b"text")]))),
    ] {
        let error = receive(dir.path(), form, &bytes, 1 << 20).await.unwrap_err();
        assert!(matches!(error, Error::NotWasm | Error::Unpack(_)), "{form:?}: {error}");
        assert_eq!(files(dir.path()), 0);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_packed_and_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = gzip(&module(1 << 20));
    assert!(bomb.len() < 4000);
    for (form, bytes) in [
        (Form::Any, module(4001)),
        (Form::Any, bomb),
        (Form::Any, gzip(&tar(&[("a", &module(1 << 20))]))),
        (Form::Layer, gzip(&tar(&[("first", &module(1 << 20)), ("plugin.wasm", &module(8))]))),
    ] {
        let error = receive(dir.path(), form, &bytes, 4000).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge(4000)), "{form:?}: {error}");
        assert_eq!(files(dir.path()), 0);
    }
    assert!(receive(dir.path(), Form::Any, &module(4000), 4000).await.is_ok());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("d"), "a file").unwrap();
    let error = receive(dir.path(), Form::Any, &module(9), 100).await.unwrap_err();
    assert!(error.to_string().contains("need a directory here"), "{error}");
}

#[tokio::test]
async fn a_download_that_breaks_off_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let download = Download::begin(dir.path().join("d"), Form::Any, 100);
    assert!(download.add(Bytes::from(module(9))).await);
    let Download { pieces, result } = download;
    drop(pieces);
    assert!(matches!(result.await.unwrap(), Err(Error::Incomplete)));
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn only_old_files_of_this_layout_are_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("a".repeat(64));
    fs::create_dir(&own).unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    let ours = [own.join(format!("{}.wasm", "b".repeat(64))), own.join("1-2.part")];
    let others = [own.join("x.wasm"), dir.path().join("other/1.part"), dir.path().join("envoy.prof")];
    for file in ours.iter().chain(&others) {
        fs::write(file, "").unwrap();
    }
    let now = std::time::SystemTime::now();
    assert!(leftovers(dir.path(), now - std::time::Duration::from_secs(60)).is_empty());
    let mut found = leftovers(dir.path(), now + std::time::Duration::from_secs(60));
    found.sort();
    let mut want = ours.to_vec();
    want.sort();
    assert_eq!(found, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_is_a_module_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000), packed: bool) {
        let bytes = if packed {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        } else {
            bytes
        };
        for form in [Form::Any, Form::Layer, Form::Bare] {
            let mut out = Vec::new();
            let result = unpack::unpack(bytes.as_slice(), form, &mut out, 100);
            prop_assert!(result.is_err() || out.starts_with(b"\0asm") && out.len() <= 100);
        }
    }
}
