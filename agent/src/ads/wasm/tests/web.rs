//! Modules of web servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Server, ok, redirect, status};
use super::*;
use crate::ads::wasm::store::sha256;

#[tokio::test]
async fn a_module_becomes_a_file_and_is_asked_for_once() {
    let server = Server::start(|_| ok(module(5000))).await;
    let stage = Stage::new();
    let wished = Wished::new(server.url("/m.wasm"));
    let Outcome::File(file) = stage.convert(&wished).await else { panic!() };
    let want = stage.dir.path().join("data").join(sha256(wished.url.as_bytes()));
    assert_eq!(file, want.join(format!("{}.wasm", sha256(&module(5000)))));
    assert_eq!(stage.convert(&wished).await, Outcome::File(file));
    assert_eq!(server.paths(), ["/m.wasm"]);
    for line in [
        "wasm_cache_entries 1",
        "wasm_cache_lookup_count{hit=\"false\"} 1",
        "wasm_cache_lookup_count{hit=\"true\"} 1",
        "wasm_remote_fetch_count{result=\"success\"} 1",
        "wasm_config_conversion_count{result=\"success\"} 2",
        "wasm_config_conversion_duration_count 2",
    ] {
        assert!(stage.shows(line), "{line}");
    }
}

#[tokio::test]
async fn who_wishes_the_same_shares_a_download() {
    let server = Server::start(|_| ok(gzip(&module(100)))).await;
    let stage = Stage::new();
    let (one, two) =
        (Wished::new(server.url("/m")), Wished { resource: "ns.two", ..Wished::new(server.url("/m")) });
    let all = tokio::join!(stage.module(&one), stage.module(&two), stage.module(&one));
    assert_eq!([all.0, all.1, all.2], [module(100), module(100), module(100)]);
    assert_eq!(server.paths().len(), 1);
}

#[tokio::test]
async fn the_checksum_is_that_of_the_module_or_of_its_archive() {
    let server = Server::start(|_| ok(gzip(&module(100)))).await;
    let stage = Stage::new();
    for sha in [sha256(&module(100)), sha256(&gzip(&module(100))).to_ascii_uppercase()] {
        let wished = Wished { sha256: sha, ..Wished::new(server.url("/m")) };
        assert_eq!(stage.module(&wished).await, module(100));
        assert_eq!(stage.module(&wished).await, module(100));
    }
    assert_eq!(server.paths().len(), 2);
    let other = Wished { sha256: sha256(b"other"), ..Wished::new(server.url("/m")) };
    assert_eq!(stage.convert(&other).await, Outcome::Closed);
    assert!(stage.shows("wasm_remote_fetch_count{result=\"checksum_mismatched\"} 1"));
    assert!(stage.shows("wasm_config_conversion_count{result=\"fetch_failure\"} 1"));
}

#[tokio::test]
async fn without_a_module_the_filter_is_open_or_closed() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/404" => status(404),
        "/html" => ok("<html>"),
        _ => redirect("http://169.254.169.254/latest/meta-data"),
    })
    .await;
    let stage = Stage::new();
    for url in [
        server.url("/404"),
        server.url("/html"),
        server.url("/metadata"),
        "ftp://a.example/m".into(),
        "m.wasm".into(),
        "http://169.254.169.254/m".into(),
        "oci://A/B/C".into(),
    ] {
        let closed = Wished::new(url.clone());
        assert_eq!(stage.convert(&closed).await, Outcome::Closed, "{url}");
        let open = Wished { fail_open: true, ..closed };
        assert_eq!(stage.convert(&open).await, Outcome::Open, "{url}");
    }
    assert!(stage.shows("wasm_remote_fetch_count{result=\"fetch_failure\"} 2"));
    assert!(stage.shows("wasm_cache_entries 0"));
    let left: usize = std::fs::read_dir(stage.dir.path().join("data"))
        .unwrap()
        .map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_closes_the_filter() {
    let server = Server::start(|_| ok(module(100))).await;
    let stage = Stage::new();
    std::fs::write(stage.dir.path().join("data"), "a file").unwrap();
    assert_eq!(stage.convert(&Wished::new(server.url("/m"))).await, Outcome::Closed);
    assert!(stage.shows("wasm_remote_fetch_count{result=\"download_failure\"} 1"));
}

#[tokio::test]
async fn a_file_that_is_gone_is_fetched_again() {
    let server = Server::start(|_| ok(module(100))).await;
    let stage = Stage::new();
    let wished = Wished::new(server.url("/m"));
    let Outcome::File(file) = stage.convert(&wished).await else { panic!() };
    std::fs::remove_file(&file).unwrap();
    assert_eq!(stage.module(&wished).await, module(100));
    assert_eq!(server.paths().len(), 2);
}

#[tokio::test]
async fn always_means_once_for_each_version_of_the_resource() {
    let count = AtomicUsize::new(100);
    let server = Server::start(move |_| ok(module(count.fetch_add(1, Ordering::Relaxed)))).await;
    let stage = Stage::new();
    let at = |policy: &str, version: &str| Wished {
        env: vec![("IMAGE_PULL_POLICY", policy.into()), ("PLUGIN_RESOURCE_VERSION", version.into())],
        ..Wished::new(server.url("/m"))
    };
    assert_eq!(stage.module(&at("Always", "1")).await.len(), 100);
    assert_eq!(stage.module(&at("Always", "1")).await.len(), 100);
    assert_eq!(stage.module(&at("Always", "2")).await.len(), 101);
    assert_eq!(stage.module(&at("IfNotPresent", "3")).await.len(), 101);
    assert_eq!(stage.module(&at("UNSPECIFIED_POLICY", "4")).await.len(), 101);
    server.stop().await;
    // What failed must not count as seen.
    assert_eq!(stage.convert(&at("Always", "5")).await, Outcome::Closed);
    assert_eq!(stage.convert(&at("Always", "5")).await, Outcome::Closed);
    assert_eq!(stage.module(&at("Always", "4")).await.len(), 101);
}

#[tokio::test]
async fn a_download_goes_on_when_nobody_waits() {
    let server = Server::start(|_| ok(module(100))).await;
    let stage = Stage::new();
    let wished = Wished::new(server.url("/m"));
    {
        let mut waiting = std::pin::pin!(stage.convert(&wished));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    }
    while !stage.shows("wasm_cache_entries 1") {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.module(&wished).await, module(100));
    assert_eq!(server.paths().len(), 1);
}

#[tokio::test]
async fn modules_that_nobody_asks_for_are_removed() {
    let server = Server::start(|_| ok(module(100))).await;
    let stage = Stage::new();
    let (one, two) = (Wished::new(server.url("/1")), Wished::new(server.url("/2")));
    let Outcome::File(first) = stage.convert(&one).await else { panic!() };
    let Outcome::File(second) = stage.convert(&two).await else { panic!() };
    // Real sockets and paused time do not go together.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(23 * 3600 + 1800)).await;
    assert_eq!(stage.convert(&two).await, Outcome::File(second.clone()));
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert!(!exists(&first));
    assert!(exists(&second));
    assert!(stage.shows("wasm_cache_entries 1"));
    tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    assert!(!exists(&second));
    assert!(stage.shows("wasm_cache_entries 0"));
}
