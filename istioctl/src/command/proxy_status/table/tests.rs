use proto::Any;
use proto::envoy::admin::v3::UpdateFailureState;
use proto::envoy::config::core::v3::{ControlPlane, Node};

use super::*;

fn proxy(id: &str, namespace: &str, types: &[(&str, ConfigStatus)]) -> Any {
    let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.into())) };
    let fields = [("CLUSTER_ID", "k"), ("ISTIO_VERSION", "1"), ("NAMESPACE", namespace)];
    let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
    let configs = types.iter().map(|(type_url, status)| GenericXdsConfig {
        type_url: (*type_url).into(),
        config_status: (*status).into(),
        error_state: (*status == ConfigStatus::Error).then(|| UpdateFailureState {
            details: "no such filter".into(),
            ..UpdateFailureState::default()
        }),
        ..GenericXdsConfig::default()
    });
    Any::pack(&ClientConfig {
        node: Some(Node {
            id: id.into(),
            metadata: Some(prost_types::Struct { fields: fields.into() }),
            ..Node::default()
        }),
        generic_xds_configs: configs.collect(),
        ..ClientConfig::default()
    })
}

fn answers() -> Vec<DiscoveryResponse> {
    let [cds, lds, ..] = FIRST.map(|(_, type_url)| type_url);
    vec![DiscoveryResponse {
        resources: vec![
            proxy(
                "web-0.shop",
                "shop",
                &[
                    (lds, ConfigStatus::Error),
                    (cds, ConfigStatus::Synced),
                    (EXTENSION, ConfigStatus::NotSent),
                ],
            ),
            proxy("db-0.data", "data", &[(cds, ConfigStatus::Unknown)]),
        ],
        control_plane: Some(ControlPlane { identifier: r#"{"ID": "istiod-0"}"#.into() }),
        ..DiscoveryResponse::default()
    }]
}

fn words(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|")
        })
        .collect()
}

#[test]
fn each_layout_has_its_columns() {
    let rows = rows(&answers(), None).unwrap();
    assert_eq!(
        words(&render(&rows, Layout::Short)),
        [
            "NAME|CLUSTER|ISTIOD|VERSION|SUBSCRIBED TYPES",
            "db-0.data|k|istiod-0|1|0",
            "web-0.shop|k|istiod-0|1|3 (CDS,LDS,ECDS)",
        ]
    );
    assert_eq!(
        words(&render(&rows, Layout::ByType)),
        [
            "NAME|CLUSTER|CDS|LDS|EDS|RDS|ECDS|ISTIOD|VERSION",
            "db-0.data|k|IGNORED|IGNORED|IGNORED|IGNORED|IGNORED|istiod-0|1",
            "web-0.shop|k|SYNCED|ERROR|IGNORED|IGNORED|NOT SENT|istiod-0|1",
        ]
    );
    assert_eq!(words(&render(&rows, Layout::Verbose))[0], "NAME|CLUSTER|CDS|ECDS|EDS|LDS|RDS|ISTIOD|VERSION");
}

#[test]
fn proxies_of_a_namespace_are_shown_and_refusals_told() {
    let rows = rows(&answers(), Some("shop")).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].refusals(), [("web-0.shop", "LDS".to_owned(), "no such filter")]);
}
