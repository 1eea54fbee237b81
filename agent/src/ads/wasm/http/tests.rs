use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use tokio_rustls::TlsAcceptor;

use super::super::tests::server::{Server, ok, redirect, status};
use super::*;

fn client() -> Client {
    Client {
        guard: Guard { blocked: Vec::new() },
        tasks: Tasks::new(),
        roots: None,
        timeout: Duration::from_secs(5),
        attempts: 3,
    }
}

fn get(url: &str) -> Ask {
    Ask::get(url.parse().unwrap(), false)
}

async fn text(client: &Client, ask: &Ask) -> Result<String, Error> {
    let answer = client.send(ask).await?.ok().await?;
    Ok(String::from_utf8(answer.text(100).await?.to_vec()).unwrap())
}

#[tokio::test]
async fn redirects_are_followed_and_passwords_stay() {
    let end = Server::start(|_| ok("here")).await;
    let to = end.url("/end");
    let first =
        Server::start(move |asked| if asked.path == "/a/b" { redirect("c?x=1") } else { redirect(&to) })
            .await;
    let url = first.url("/a/b").replace("http://", "http://me:secret@");
    assert_eq!(text(&client(), &get(&url)).await.unwrap(), "here");
    assert_eq!(first.paths(), ["/a/b", "/a/c?x=1"]);
    assert!(first.asked().iter().all(|asked| asked.headers.contains_key(AUTHORIZATION)));
    assert_eq!(end.paths(), ["/end"]);
    assert!(!end.asked()[0].headers.contains_key(AUTHORIZATION));
    assert_eq!(end.asked()[0].headers[HOST], end.address.to_string());
}

#[tokio::test]
async fn endless_redirects_end() {
    let server = Server::start(|_| redirect("/again")).await;
    let error = text(&client(), &get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, Error::Lead { .. }), "{error}");
    assert_eq!(server.paths().len(), REDIRECTS + 1);
}

#[tokio::test]
async fn nobody_leads_to_metadata_servers() {
    let server = Server::start(|asked| redirect(&format!("http:/{}/latest/meta-data", asked.path))).await;
    for host in ["169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"] {
        let error = text(&client(), &get(&server.url(&format!("/{host}")))).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{host}: {error}");
    }
    let direct = text(&client(), &get("http://169.254.169.254/latest")).await.unwrap_err();
    assert!(direct.to_string().contains("link-local"), "{direct}");
}

#[tokio::test]
async fn named_networks_are_refused_behind_names_and_redirects() {
    let target = Server::start(|_| ok("secret")).await;
    let to = format!("http://localhost:{}/", target.address.port());
    let mut client = client();
    client.guard.blocked = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let error = text(&client, &get(&to)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { refused: Refused::Blocked(..), .. }), "{error}");
    assert!(target.paths().is_empty());
}

#[tokio::test]
async fn strict_servers_keep_out_of_private_networks() {
    let server = Server::start(|_| redirect("http://10.0.0.1/x")).await;
    let ask = Ask { strict: true, ..get(&server.url("/")) };
    let error = text(&client(), &ask).await.unwrap_err();
    assert!(error.to_string().contains("a private address"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again() {
    let url: Uri = "http://a.example/".parse().unwrap();
    for (code, attempts) in [(500, 3), (503, 3), (429, 3), (501, 1), (404, 1)] {
        let count = AtomicU32::new(0);
        let once = || async {
            count.fetch_add(1, Ordering::Relaxed);
            let status = StatusCode::from_u16(code).unwrap();
            Err(Error::Status { url: String::new(), status, detail: String::new() })
        };
        let result: Result<(), Error> = client().retry(&url, once).await;
        assert!(result.is_err());
        assert_eq!(count.into_inner(), attempts, "{code}");
    }
    let count = AtomicU32::new(0);
    let slow_once = || async {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let result: Result<(), Error> = client().retry(&url, slow_once).await;
    assert!(result.is_ok());
    assert_eq!(count.into_inner(), 2);
}

#[tokio::test]
async fn what_the_server_says_is_told() {
    let server = Server::start(|_| status(403)).await;
    let error = text(&client(), &get(&server.url("/m?sig=secret"))).await.unwrap_err().to_string();
    assert_eq!(error, format!("{}: 403 Forbidden: because of the test", server.url("/m")));
}

#[tokio::test]
async fn long_texts_are_refused() {
    let server = Server::start(|_| ok(vec![b'x'; 101])).await;
    let error = text(&client(), &get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, Error::Body { .. }), "{error}");
}

/// A server with a certificate for 127.0.0.1, and the file with its root.
async fn secure(dir: &std::path::Path) -> (Server, PathBuf) {
    let day = Duration::from_secs(86400);
    let (issuer, _) = Issuer::self_signed("test", day, SystemTime::now()).unwrap();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let csr = Csr::of_key(&key).unwrap();
    let chain = issuer.issue(&csr, &[San::Ip([127, 0, 0, 1].into())], day, SystemTime::now()).unwrap();
    let config = pki::verify::server_config(&chain.concat(), &key, issuer.root_pem(), &[]).unwrap();
    let server = Server::listen(Some(TlsAcceptor::from(Arc::new(config))), |_| ok("safe")).await;
    let roots = dir.join("roots.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&roots, format!("{broken}{}", issuer.root_pem())).unwrap();
    (server, roots)
}

#[tokio::test]
async fn servers_are_verified_unless_they_need_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let (server, roots) = secure(dir.path()).await;
    let url = format!("https://{}/", server.address);
    let trusting = Client { roots: Some(roots), ..client() };
    assert_eq!(text(&trusting, &get(&url)).await.unwrap(), "safe");

    let other = dir.path().join("other.pem");
    let (issuer, _) = Issuer::self_signed("other", Duration::from_secs(60), SystemTime::now()).unwrap();
    std::fs::write(&other, issuer.root_pem()).unwrap();
    let doubting = Client { roots: Some(other), ..client() };
    let error = text(&doubting, &get(&url)).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    let careless = Ask::get(url.parse().unwrap(), true);
    assert_eq!(text(&doubting, &careless).await.unwrap(), "safe");

    let empty = Client { roots: Some(dir.path().join("none.pem")), ..client() };
    let error = text(&empty, &get(&url)).await.unwrap_err();
    assert!(error.to_string().contains("none.pem"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let server = Server::start(|_| ok("plain")).await;
    let error =
        text(&client(), &Ask::get(format!("https://{}/", server.address).parse().unwrap(), true)).await;
    assert!(matches!(error, Err(Error::NoTls(_))), "{error:?}");
}

#[tokio::test]
async fn tls_is_not_left_by_a_redirect() {
    let from = "https://a.example/x".parse().unwrap();
    let to = "http://a.example/x".parse().unwrap();
    assert!(check_lead(&get("https://a.example/x"), &from, &to).is_err());
    assert!(check_lead(&Ask::get("https://a.example/x".parse().unwrap(), true), &from, &to).is_ok());
    assert!(check_lead(&get("http://a.example/x"), &to, &from).is_ok());
}
