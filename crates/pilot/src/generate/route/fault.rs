//! Faults on purpose.

use proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use proto::istio::networking::v1alpha3::HttpFaultInjection;
use proto::istio::networking::v1alpha3::http_fault_injection::abort::ErrorType;
use proto::istio::networking::v1alpha3::http_fault_injection::delay::HttpDelayType;
use proto::istio::networking::v1alpha3::http_fault_injection::{Abort, Delay};

use super::share;

/// Envoy's form; `None` when nothing is left that Envoy has.
pub(super) fn fault(fault: &HttpFaultInjection) -> Option<HttpFault> {
    let delay = fault.delay.as_ref().and_then(delay);
    let abort = fault.abort.as_ref().and_then(abort);
    let is_any = delay.is_some() || abort.is_some();
    is_any.then(|| HttpFault { delay, abort, ..HttpFault::default() })
}

fn delay(delay: &Delay) -> Option<FaultDelay> {
    let Some(HttpDelayType::FixedDelay(time)) = &delay.http_delay_type else { return None };
    Some(FaultDelay {
        percentage: Some(match &delay.percentage {
            Some(percentage) => share::of(percentage),
            None => share::whole(u32::try_from(delay.percent).unwrap_or(0)),
        }),
        fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay((*time).into())),
    })
}

fn abort(abort: &Abort) -> Option<FaultAbort> {
    let error = match &abort.error_type {
        Some(ErrorType::HttpStatus(status)) => fault_abort::ErrorType::HttpStatus(
            u32::try_from(*status).ok().filter(|code| (200..600).contains(code))?,
        ),
        Some(ErrorType::GrpcStatus(name)) => fault_abort::ErrorType::GrpcStatus(grpc_code(name)?),
        _ => return None,
    };
    Some(FaultAbort {
        percentage: abort.percentage.as_ref().map(share::of),
        error_type: Some(error),
        ..FaultAbort::default()
    })
}

/// A gRPC status code by its name.
fn grpc_code(name: &str) -> Option<u32> {
    let codes = &config::validate::GRPC_CODES;
    codes.iter().position(|known| *known == name).and_then(|code| u32::try_from(code).ok())
}
