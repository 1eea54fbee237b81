use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A metadata server on this machine: answers by method and path, as long as
/// the header is there.
async fn serve(
    header: &'static str,
    answers: &'static [(&'static str, &'static str)],
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let answer = answers
                .iter()
                .find(|(line, _)| request.starts_with(&format!("{line} http/1.1").to_lowercase()))
                .filter(|_| request.contains(header));
            let text = match answer {
                Some((_, body)) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    (address, task)
}

fn metadata(known: &Known) -> Vec<(&str, &str)> {
    known.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn amazon_tells_with_a_token() {
    let (server, _task) = serve(
        "x-aws-ec2-metadata-token",
        &[
            ("PUT /latest/api/token", "key"),
            ("GET /latest/meta-data/placement/region", "eu-west-1"),
            ("GET /latest/meta-data/placement/availability-zone", "eu-west-1b"),
        ],
    )
    .await;
    let known = ask(Cloud::Aws, server).await;
    assert_eq!(known.locality, ["eu-west-1", "eu-west-1b"]);
    assert_eq!(metadata(&known), [("aws_availability_zone", "eu-west-1b"), ("aws_region", "eu-west-1")]);
}

#[tokio::test]
async fn google_tells_zone_and_cluster() {
    let (server, _task) = serve(
        "metadata-flavor: google",
        &[
            ("GET /computeMetadata/v1/project/project-id", "p"),
            ("GET /computeMetadata/v1/instance/zone", "projects/7/zones/us-central1-f"),
            ("GET /computeMetadata/v1/instance/attributes/cluster-name", "c"),
        ],
    )
    .await;
    let known = ask(Cloud::Gcp, server).await;
    assert_eq!(known.locality, ["us-central1", "us-central1-f"]);
    assert_eq!(
        metadata(&known),
        [
            ("gcp_gke_cluster_name", "c"),
            (
                "gcp_gke_cluster_url",
                "https://container.googleapis.com/v1/projects/p/locations/us-central1-f/clusters/c"
            ),
            ("gcp_location", "us-central1-f"),
            ("gcp_project", "p"),
        ]
    );
}

#[tokio::test]
async fn microsoft_tells_tags() {
    let (server, _task) = serve(
        "metadata: true",
        &[(
            "GET /metadata/instance?api-version=2019-08-15",
            r#"{"compute":{"name":"vm","location":"westus","zone":"2","vmId":"v","tagsList":[{"name":"t","value":"1"}],"tags":"x:y"}}"#,
        )],
    )
    .await;
    let known = ask(Cloud::Azure, server).await;
    assert_eq!(known.locality, ["westus", "2"]);
    assert_eq!(
        metadata(&known),
        [("azure_location", "westus"), ("azure_name", "vm"), ("azure_t", "1"), ("azure_vmId", "v")]
    );
}

#[tokio::test]
async fn nothing_is_known_when_nobody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let known = tokio::time::timeout(Duration::from_secs(60), ask(Cloud::Azure, server)).await.unwrap();
    assert_eq!(known, Known::default());
}
