//! The adapter service.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::state::State;

/// The generated messages.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated")]
pub(super) mod wire {
    tonic::include_proto!("adapter");
}

use wire::adapter_server::Adapter;
use wire::{
    AddResourceResponse, ClearStateRequest, ClearStateResponse, RemoveResourceResponse, ResourceRequest,
    SetStateRequest, SetStateResponse, UpdateResourceResponse,
};

/// The suite does not wait until its own last request has arrived before it
/// changes a resource; without a pause either order would be right.
const PAUSE: Duration = Duration::from_millis(100);

/// Changes the state as the suite says.
#[derive(Debug)]
pub(super) struct Service {
    state: watch::Sender<Arc<State>>,
}

impl Service {
    pub(super) fn new(state: watch::Sender<Arc<State>>) -> Self {
        Self { state }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| change(Arc::make_mut(state)));
    }
}

#[tonic::async_trait]
impl Adapter for Service {
    async fn set_state(
        &self,
        request: Request<SetStateRequest>,
    ) -> Result<Response<SetStateResponse>, Status> {
        let SetStateRequest { version, resources, .. } = request.into_inner();
        self.change(|state| *state = State::new(&resources, &version));
        Ok(Response::new(SetStateResponse { success: true }))
    }

    async fn clear_state(
        &self,
        _: Request<ClearStateRequest>,
    ) -> Result<Response<ClearStateResponse>, Status> {
        self.change(|state| *state = State::default());
        Ok(Response::new(ClearStateResponse { response: "cleared".into() }))
    }

    async fn update_resource(
        &self,
        request: Request<ResourceRequest>,
    ) -> Result<Response<UpdateResourceResponse>, Status> {
        tokio::time::sleep(PAUSE).await;
        let ResourceRequest { type_url, resource_name, version, .. } = request.into_inner();
        self.change(|state| state.set(type_url.as_str().into(), &resource_name, &version));
        Ok(Response::new(UpdateResourceResponse { success: true }))
    }

    async fn add_resource(
        &self,
        request: Request<ResourceRequest>,
    ) -> Result<Response<AddResourceResponse>, Status> {
        let ResourceRequest { type_url, resource_name, version, .. } = request.into_inner();
        self.change(|state| state.set(type_url.as_str().into(), &resource_name, &version));
        Ok(Response::new(AddResourceResponse { success: true }))
    }

    async fn remove_resource(
        &self,
        request: Request<ResourceRequest>,
    ) -> Result<Response<RemoveResourceResponse>, Status> {
        let ResourceRequest { type_url, resource_name, version, .. } = request.into_inner();
        self.change(|state| state.remove(type_url.as_str().into(), &resource_name, &version));
        Ok(Response::new(RemoveResourceResponse { success: true }))
    }
}
