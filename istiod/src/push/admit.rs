//! The beginning of a stream: which proxy it is, and whether the caller may be that.

use futures_util::{Stream, StreamExt as _};
use names::TypeUrl;
use pilot::Proxy;
use tonic::Status;

use super::connection::{Hub, Incoming};
use crate::auth::Caller;

/// The proxy and its first request, once it has said who it is and may be that;
/// `None` when it left before.
pub(super) async fn open(
    hub: &Hub,
    caller: Option<&Caller>,
    requests: &mut (impl Stream<Item = Result<Incoming, Status>> + Unpin),
) -> Result<Option<(Proxy, Incoming)>, Status> {
    let Some(first) = first_request(requests).await? else { return Ok(None) };
    let node = first.node.as_ref().filter(|node| !node.id.is_empty()).ok_or_else(|| {
        Status::invalid_argument("the first request of a stream must carry the node with its id")
    })?;
    let proxy = Proxy::from_node(node).map_err(|error| Status::invalid_argument(format!("node: {error}")))?;
    if hub.identity_check
        && let Some(caller) = caller
    {
        authorize(caller, &proxy)?;
    }
    Ok(Some((proxy, first)))
}

/// The first request that is not about health.
async fn first_request(
    requests: &mut (impl Stream<Item = Result<Incoming, Status>> + Unpin),
) -> Result<Option<Incoming>, Status> {
    while let Some(incoming) = requests.next().await {
        let incoming = incoming?;
        if incoming.request.type_url != TypeUrl::Health {
            return Ok(Some(incoming));
        }
    }
    Ok(None)
}

/// The caller must be the workload that the node claims to be.
fn authorize(caller: &Caller, proxy: &Proxy) -> Result<(), Status> {
    let (namespace, service_account) = (&proxy.namespace, &proxy.service_account);
    let fits = caller.identities.iter().any(|id| {
        id.namespace.as_str() == namespace
            && (service_account.is_empty() || id.service_account.as_str() == service_account)
    });
    if fits {
        return Ok(());
    }
    let identities: Vec<String> = caller.identities.iter().map(ToString::to_string).collect();
    Err(Status::permission_denied(format!(
        "authorization failed: no identities ([{}]) matched {namespace}/{service_account}",
        identities.join(" ")
    )))
}
