//! The inputs of Istio's own benchmarks of push generation.

use std::fmt::Write as _;

/// A case with what Istio's took for it: milliseconds (the lower of two runs)
/// and bytes allocated, as measured on a machine of two shared cores.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Its objects, YAML.
    pub objects: String,
    /// Whether the proxy is a gateway.
    pub is_router: bool,
    /// Indexing all objects.
    pub index: Figure,
    /// Clusters, listeners and routes.
    pub types: [Option<Figure>; 3],
}

/// Milliseconds and bytes.
pub type Figure = (f64, u64);

const OWN: &str = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own, namespace: default}
spec:
  hosts: [example.com]
  resolution: STATIC
  location: MESH_INTERNAL
  endpoints: [{address: 1.1.1.1}]
  ports: [PORTS]
";
const FOUR: &str = "{number: 80, name: http, protocol: HTTP}, {number: 7070, name: tcp, protocol: TCP}, \
                    {number: 443, name: https, protocol: HTTPS}, {number: 9090, name: auto}";

fn own(ports: &str) -> String {
    OWN.replace("PORTS", ports)
}

const HTTP: &str = "{number: 80, name: http, protocol: HTTP}";

fn service(index: usize, port: &str, address: Option<String>, endpoint: &str) -> String {
    let addresses = address.map(|address| format!("  addresses: [{address}]\n")).unwrap_or_default();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: random-{index}, \
         namespace: default}}\nspec:\n  hosts: [random-{index}.host.example]\n{addresses}  resolution: STATIC\n  \
         location: MESH_INTERNAL\n  ports: [{port}]\n  endpoints: [{endpoint}]\n"
    )
}

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect()
}

/// Services with one port of some protocol, each with an address.
fn services(port: &str) -> String {
    own(port)
        + &many(100, |index| {
            let (high, low) = (index / 255, index % 255);
            let endpoint =
                format!("{{address: 240.241.{high}.{low}, labels: {{security.istio.io/tlsMode: istio}}}}");
            service(index, port, Some(format!("240.240.{high}.{low}")), &endpoint)
        })
}

fn virtual_services() -> String {
    own(HTTP)
        + &many(100, |index| {
            let host = format!("random-{index}.host.example");
            service(index, HTTP, None, "{address: 1.2.3.4}")
                + &format!(
                    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: \
                     random-{index}, namespace: default}}\nspec:\n  hosts: [{host}]\n  http:\n  - match: [{{uri: \
                     {{prefix: /foo}}}}, {{uri: {{regex: /bar}}}}]\n    rewrite: {{uri: /new-url}}\n    route: \
                     [{{destination: {{host: {host}}}}}]\n"
                )
        })
}

fn policy(mode: &str) -> String {
    own(FOUR)
        + &format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, \
             namespace: default}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
}

fn external_names() -> String {
    own(HTTP)
        + &many(100, |index| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: random-{index}, namespace: \
                 default}}\nspec: {{type: ExternalName, externalName: example.com, ports: [{{name: http, port: \
                 80}}]}}\n"
            )
        })
}

fn policies() -> String {
    own("{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}")
        + &many(100, |index| {
            format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: \
                 authn-{index}, namespace: default}}\nspec:\n  action: DENY\n  rules: [{{from: [{{source: \
                 {{namespaces: [default]}}}}], to: [{{operation: {{methods: [POST]}}}}]}}]\n"
            )
        })
}

fn telemetry() -> String {
    own(FOUR)
        + &many(100, |index| service(index, FOUR, None, "{address: 1.2.3.4}"))
        + "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: mesh, namespace: \
           istio-system}\nspec:\n  metrics: [{providers: [{name: prometheus}]}]\n  accessLogging: [{providers: \
           [{name: envoy}]}]\n"
}

fn workload_entries() -> String {
    let mut text = own(FOUR);
    for index in 0..100 {
        let entry = service(index, FOUR, None, "").replace(
            "  endpoints: []\n",
            &format!("  workloadSelector: {{labels: {{app: random-{index}}}}}\n"),
        );
        text.push_str(&entry);
    }
    for index in 0..1000 {
        let (high, low, app) = (index / 255, index % 255, index % 100);
        // Writing to a string does not fail.
        write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: random-{index}, \
             namespace: default}}\nspec: {{address: 240.241.{high}.{low}, serviceAccount: random, labels: \
             {{app: random-{app}}}}}\n"
        )
        .ok();
    }
    text
}

fn gateway(name: &str, hosts: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: \
         gateway}}\nspec:\n  selector: {{istio.io/benchmark: 'true'}}\n  servers:\n  - {{hosts: [{hosts}], port: \
         {{name: http, number: 80, protocol: HTTP}}}}\n  - {{hosts: [{hosts}], port: {{name: https, number: 443, \
         protocol: HTTPS}}, tls: {{mode: ISTIO_MUTUAL}}}}\n"
    )
}

fn gateway_route(index: usize, gateway: &str, hosts: &str, prefixes: &[String]) -> String {
    let matches: Vec<String> =
        prefixes.iter().map(|prefix| format!("{{uri: {{prefix: {prefix}}}}}")).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: random-{index}, \
         namespace: default}}\nspec:\n  hosts: [{hosts}]\n  gateways: [gateway/{gateway}]\n  http: [{{match: [{}], \
         route: [{{destination: {{host: random-{index}.host.example}}}}]}}]\n",
        matches.join(", ")
    )
}

fn gateways() -> String {
    own(HTTP)
        + &many(1000, |index| {
            let hosts = ["a", "b", "c"].map(|part| format!("random-{part}-{index}.host.example")).join(", ");
            let name = format!("gateway-{index}");
            gateway(&name, &hosts)
                + &gateway_route(index, &name, &hosts, &["/foo".to_owned()])
                + &service(index, HTTP, None, "{address: 1.2.3.4}")
        })
}

fn shared_gateway() -> String {
    let hosts = ["a", "b", "c"].map(|part| format!("random-{part}.host.example")).join(", ");
    own(HTTP)
        + &gateway("shared", &hosts)
        + &many(1000, |index| {
            let prefixes: Vec<String> = (0..6).map(|part| format!("/{index}/{part}")).collect();
            gateway_route(index, "shared", &hosts, &prefixes)
                + &service(index, HTTP, None, "{address: 1.2.3.4}")
        })
}

/// All cases with Istio's figures.
#[must_use]
pub fn all() -> Vec<Case> {
    let case = |name, objects: String, index, clusters, listeners, routes| Case {
        name,
        objects,
        is_router: false,
        index,
        types: [clusters, listeners, routes],
    };
    let mut cases = vec![
        case(
            "http",
            services(HTTP),
            (0.240, 108_750),
            Some((1.992, 872_392)),
            Some((0.243, 66_024)),
            Some((0.479, 362_096)),
        ),
        case(
            "tcp",
            services("{number: 80, name: tcp, protocol: TCP}"),
            (0.217, 108_505),
            Some((4.015, 872_912)),
            Some((0.801, 376_326)),
            None,
        ),
        case(
            "tls",
            services("{number: 80, name: tls, protocol: TLS}"),
            (0.259, 108_258),
            Some((3.418, 872_912)),
            Some((0.864, 377_347)),
            None,
        ),
        case(
            "auto",
            services("{number: 80, name: auto}"),
            (0.214, 108_415),
            Some((2.480, 1_000_567)),
            Some((5.181, 1_195_045)),
            Some((1.156, 788_610)),
        ),
        case("strict", policy("STRICT"), (0.036, 5_625), None, Some((0.252, 87_465)), None),
        case("disabled", policy("DISABLE"), (0.025, 5_630), None, Some((0.328, 72_080)), None),
        case(
            "externalname",
            external_names(),
            (0.334, 81_015),
            Some((0.054, 18_272)),
            Some((0.205, 67_624)),
            Some((0.081, 53_328)),
        ),
        case(
            "telemetry-api",
            telemetry(),
            (0.286, 111_615),
            Some((8.511, 2_819_085)),
            Some((2.579, 1_286_399)),
            Some((0.815, 669_644)),
        ),
        case(
            "virtualservice",
            virtual_services(),
            (0.564, 112_595),
            Some((1.457, 676_504)),
            Some((0.186, 66_024)),
            Some((1.111, 720_131)),
        ),
        case("authorizationpolicy", policies(), (0.080, 34_139), None, Some((1.363, 660_483)), None),
        case(
            "serviceentry-workloadentry",
            workload_entries(),
            (0.396, 208_027),
            Some((13.392, 3_691_346)),
            Some((2.652, 564_304)),
            Some((1.064, 669_644)),
        ),
    ];
    let router = |name, objects, index, clusters, listeners, routes| Case {
        is_router: true,
        ..case(name, objects, index, Some(clusters), Some(listeners), Some(routes))
    };
    cases.push(router(
        "gateways",
        gateways(),
        (17.711, 4_226_681),
        (15.758, 6_632_006),
        (30.425, 9_272_798),
        (117.503, 12_041_896),
    ));
    cases.push(router(
        "gateways-shared",
        shared_gateway(),
        (8.101, 1_165_409),
        (25.966, 6_631_921),
        (0.089, 20_648),
        (375.206, 32_661_656),
    ));
    cases
}
