//! Rules of fault injection.

use proto::istio::networking::v1alpha3::HttpFaultInjection;
use proto::istio::networking::v1alpha3::http_fault_injection::abort::ErrorType;
use proto::istio::networking::v1alpha3::http_fault_injection::delay::HttpDelayType;

use crate::validate::{Checker, GRPC_CODES};

pub(super) fn check(at: &str, fault: &HttpFaultInjection, checker: &mut Checker) {
    if fault.abort.is_none() && fault.delay.is_none() {
        checker.error(at, "is empty: give abort, delay or both");
    }
    if let Some(abort) = &fault.abort {
        let at = format!("{at}.abort");
        checker
            .percentage(&format!("{at}.percentage"), abort.percentage.as_ref().map(|percent| percent.value));
        match &abort.error_type {
            Some(ErrorType::HttpStatus(status)) if (200..600).contains(status) => {}
            Some(ErrorType::HttpStatus(status)) => {
                let message = format!("{status} is not a status: expected 200 to 599");
                checker.error(format!("{at}.httpStatus"), message);
            }
            Some(ErrorType::GrpcStatus(name)) => {
                checker.one_of(&format!("{at}.grpcStatus"), name, &GRPC_CODES);
            }
            Some(ErrorType::Http2Error(_)) => {
                checker.error(format!("{at}.http2Error"), "is not supported: give httpStatus or grpcStatus");
            }
            None => checker.warn(at, "has no effect: give httpStatus or grpcStatus"),
        }
    }
    if let Some(delay) = &fault.delay {
        let at = format!("{at}.delay");
        checker
            .percentage(&format!("{at}.percentage"), delay.percentage.as_ref().map(|percent| percent.value));
        checker.percentage(&format!("{at}.percent"), Some(f64::from(delay.percent)));
        match &delay.http_delay_type {
            Some(HttpDelayType::FixedDelay(time)) => {
                checker.duration(&format!("{at}.fixedDelay"), Some(time));
            }
            Some(HttpDelayType::ExponentialDelay(_)) => {
                checker.error(format!("{at}.exponentialDelay"), "is not supported: give fixedDelay");
            }
            None => checker.warn(at, "has no effect: give fixedDelay"),
        }
    }
}
