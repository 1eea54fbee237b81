//! xDS streams.

use std::time::Duration;

use super::super::ads::Settings;
use super::super::env::{self, Reader, Variable};
use crate::upstream::Keepalive;

/// Shortest time between two questions whether a connection is alive; gRPC
/// servers end connections that ask more often.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// See [`Settings::stall`]; as long as istiod waits for an agent.
const STALL: Duration = Duration::from_secs(60);

pub(super) fn ads(reader: &mut Reader<'_>) -> Settings {
    let mut least = |variable: Variable, least: Duration| {
        let value = reader.duration(variable);
        if value < least {
            let text = reader.text(variable);
            reader.invalid(variable, text, format_args!("at least {least:?}"));
        }
        value
    };
    let interval = least(env::GRPC_KEEPALIVE_INTERVAL, INTERVAL_MIN);
    let timeout = least(env::GRPC_KEEPALIVE_TIMEOUT, Duration::from_secs(1));
    let mut positive = |variable| {
        reader.parse_with(variable, "a whole number from 1", |text| {
            text.parse().ok().filter(|limit| *limit > 0)
        })
    };
    let streams_max = positive(env::ISTIO_GPRC_MAXSTREAMS);
    // Checked only: messages of any size pass.
    positive(env::ISTIO_GPRC_MAXRECVMSGSIZE);
    Settings { keepalive: Keepalive { interval, timeout }, streams_max, stall: STALL }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::resolve::tests::{LINE, root, with};

    #[test]
    fn keepalive_and_limits_are_read() {
        let dir = root();
        let (config, warnings) = with(dir.path(), LINE, &[], &[]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.ads.keepalive.interval, Duration::from_secs(30));
        assert_eq!(config.ads.keepalive.timeout, Duration::from_secs(10));
        assert_eq!(config.ads.streams_max, 100);
        let env = [
            ("GRPC_KEEPALIVE_INTERVAL", "1m"),
            ("ISTIO_GPRC_MAXSTREAMS", "7"),
            ("ISTIO_GPRC_MAXRECVMSGSIZE", "104857600"),
        ];
        let (config, _) = with(dir.path(), LINE, &env, &[]).unwrap();
        assert_eq!(config.ads.keepalive.interval, Duration::from_secs(60));
        assert_eq!(config.ads.streams_max, 7);
        let env = [
            ("GRPC_KEEPALIVE_INTERVAL", "1s"),
            ("GRPC_KEEPALIVE_TIMEOUT", "soon"),
            ("ISTIO_GPRC_MAXSTREAMS", "0"),
            ("ISTIO_GPRC_MAXRECVMSGSIZE", "4MB"),
        ];
        let errors = with(dir.path(), LINE, &env, &[]).unwrap_err();
        assert_eq!(
            errors,
            [
                "GRPC_KEEPALIVE_INTERVAL=\"1s\": expected at least 10s",
                "GRPC_KEEPALIVE_TIMEOUT=\"soon\": expected a duration such as 30s, 10m or 24h",
                "ISTIO_GPRC_MAXSTREAMS=\"0\": expected a whole number from 1",
                "ISTIO_GPRC_MAXRECVMSGSIZE=\"4MB\": expected a whole number from 1",
            ]
        );
    }
}
