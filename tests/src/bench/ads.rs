//! xDS through the agent against xDS straight from istiod.

use std::time::{Duration, Instant};

use anyhow::ensure;
use names::TypeUrl;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::{Times, ratio};
use crate::grpc::{Channel, Exchange};
use crate::mesh::{ISTIOD, Mesh};
use crate::netns::within;

const RUNS: usize = 300;

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// Round trips of one request for one route, on one stream each.
pub(super) fn run(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.pod("productpage-v1")?;
    let workload = &pod.workload;
    let token = mesh.istiod.token(&workload.namespace, &workload.service_account)?;
    let roots = mesh.istiod.root()?;
    let socket = pod.dir.join(names::path::CONFIG_PATH).join(names::path::ADS_SOCKET_NAME);
    let first = || DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!("sidecar~{}~{}.default~default.svc.cluster.local", workload.address, workload.name),
            ..Node::default()
        }),
        ..request(&["9080"], &[])
    };
    // From the client's namespace nothing is redirected.
    let (agent, direct) = within(&mesh.client, || async {
        let (through, straight) = (
            Channel::unix(&socket).await?,
            Channel::tls((ISTIOD, names::port::ISTIOD_TLS).into(), &roots).await?,
        );
        let mut through = through.delta(None, first()).await?;
        let mut straight = straight.delta(Some(&token), first()).await?;
        through.next().await?;
        straight.next().await?;
        let (mut agent, mut direct) = (Times::default(), Times::default());
        for _ in 0..RUNS {
            agent.add(round_trip(&mut through).await?);
            direct.add(round_trip(&mut straight).await?);
        }
        Ok((agent, direct))
    })?;
    agent.row("xDS request and answer through the agent", "");
    direct.row("xDS request and answer straight from istiod", "");
    ratio("through the agent ÷ straight", &agent, &direct, "");
    Ok(())
}

fn request(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    DeltaDiscoveryRequest {
        type_url: TypeUrl::Route.as_str().to_owned(),
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

async fn round_trip(stream: &mut Stream) -> anyhow::Result<Duration> {
    stream.send(request(&[], &["9080"])).await?;
    let start = Instant::now();
    stream.send(request(&["9080"], &[])).await?;
    let response = stream.next().await?;
    let elapsed = start.elapsed();
    ensure!(response.resources.len() == 1, "{} routes", response.resources.len());
    Ok(elapsed)
}
