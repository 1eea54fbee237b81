//! ECDS responses, whose Wasm filters are made ready for Envoy.

use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message as _;
use proto::Any;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::frame::framed;

use super::own::Variant;
use super::wasm::{Conversion, Fetcher};

/// Makes a response ready, which may take as long as its longest download
/// does; returns it with the bytes before it.
///
/// # Errors
/// Why istiod is to be told that it is refused.
pub async fn converted(fetcher: &Fetcher, variant: Variant, message: Bytes) -> Result<Bytes, String> {
    Ok(match variant {
        Variant::Sotw => {
            let mut message = DiscoveryResponse::decode(message).map_err(|error| error.to_string())?;
            try_join_all(message.resources.iter_mut().map(|any| replace(fetcher, "", any))).await?;
            framed(&message)
        }
        Variant::Delta => {
            let mut message = DeltaDiscoveryResponse::decode(message).map_err(|error| error.to_string())?;
            let resources = message.resources.iter_mut();
            let all = resources.filter_map(|resource| {
                let any = resource.resource.as_mut()?;
                Some(replace(fetcher, &resource.name, any))
            });
            try_join_all(all).await?;
            framed(&message)
        }
    })
}

async fn replace(fetcher: &Fetcher, name: &str, any: &mut Any) -> Result<(), String> {
    let conversion = Conversion { name: name.to_owned(), config: any.value.clone() };
    any.value = fetcher.convert(conversion).await.map_err(|error| error.to_string())?;
    Ok(())
}
