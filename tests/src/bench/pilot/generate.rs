//! Time and bytes allocated for one proxy's full push, and for a change of
//! endpoints, beside what Istio's own benchmarks measured for the same inputs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use config::{Object, Store, yaml};
use names::TypeUrl;
use pilot::{Proxy, Snapshot};
use proto::envoy::config::core::v3::Node;
use xds::session::Wanted;
use xds::{Resource, Variant};

use super::Allocated;
use super::cases::{self, Case, Figure};
use crate::bench::say;
use crate::plane::{Plane, Simulated};

/// How long a measurement goes on at least.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// Measures all cases, or one.
///
/// # Errors
/// When a case cannot be read.
pub fn run(only: Option<&str>, allocated: Allocated) -> anyhow::Result<()> {
    say("| case | what | resources | kB | ms | Istio's ms | ratio | bytes allocated | Istio's | ratio |");
    say("|---|---|---|---|---|---|---|---|---|---|");
    for case in cases::all() {
        if only.is_none_or(|only| only == case.name) {
            measure(&case, allocated)?;
        }
    }
    if only.is_none_or(|only| only == "endpoints") {
        endpoints(allocated)?;
    }
    Ok(())
}

fn objects(text: &str) -> anyhow::Result<Vec<Object>> {
    let contents = yaml::read("bench.yaml", text);
    match contents.problems.iter().find(|problem| problem.severity == config::Severity::Error) {
        Some(problem) => Err(anyhow!("{problem}")),
        None => Ok(contents.objects),
    }
}

fn store(objects: Vec<Object>) -> Store {
    let mut store = Store::default();
    for object in objects {
        store.apply(Arc::new(object));
    }
    store
}

fn settings() -> pilot::Settings {
    pilot::Settings::new(Arc::default(), "Kubernetes")
}

/// The proxy of all cases.
pub(super) fn proxy(is_router: bool, ip: &str, name: &str) -> anyhow::Result<Proxy> {
    let kind = if is_router { "router" } else { "sidecar" };
    let namespace = if is_router { "gateway" } else { "default" };
    let mut node = Node {
        id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        ..Node::default()
    };
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let labels = prost_types::Struct { fields: [("istio.io/benchmark".to_owned(), text("true"))].into() };
    let labels = prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(labels)) };
    let fields = [("LABELS", labels), ("CLUSTER_ID", text("Kubernetes")), ("ISTIO_VERSION", text("1.26.0"))];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    node.metadata = Some(prost_types::Struct { fields });
    Proxy::from_node(&node).map_err(|error| anyhow!("{error}"))
}

/// Milliseconds and bytes of one run, the least of all.
fn least<T>(allocated: Allocated, mut run: impl FnMut() -> T) -> Figure {
    let begin = Instant::now();
    let mut best = (f64::INFINITY, u64::MAX);
    while begin.elapsed() < LONG_ENOUGH {
        let (start, before) = (Instant::now(), allocated());
        black_box(run());
        best.0 = best.0.min(start.elapsed().as_secs_f64() * 1000.0);
        best.1 = best.1.min(allocated() - before);
    }
    best
}

fn row(case: &str, what: &str, resources: &[Resource], ours: Figure, theirs: Option<Figure>) {
    let bytes: usize = resources.iter().map(|resource| resource.body.len()).sum();
    let (count, size) = match resources.len() {
        0 => (String::new(), String::new()),
        count => (count.to_string(), format!("{:.1}", bytes as f64 / 1000.0)),
    };
    let (ms, ms_ratio, their_bytes, ratio) = theirs.map_or_else(Default::default, |theirs| {
        (
            format!("{:.3}", theirs.0),
            format!("{:.1} ×", theirs.0 / ours.0),
            theirs.1.to_string(),
            format!("{:.1} ×", theirs.1 as f64 / ours.1 as f64),
        )
    });
    say(&format!(
        "| {case} | {what} | {count} | {size} | {:.3} | {ms} | {ms_ratio} | {} | {their_bytes} | {ratio} |",
        ours.0, ours.1
    ));
}

fn measure(case: &Case, allocated: Allocated) -> anyhow::Result<()> {
    let objects = objects(&case.objects)?;
    let store = store(objects.clone());
    let proxy = proxy(case.is_router, "1.1.1.1", "v0")?;
    let index = least(allocated, || Snapshot::build(&store, &settings()));
    row(case.name, "index", &[], index, Some(case.index));
    let snapshot = Snapshot::build(&store, &settings());
    let types = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Route];
    for (type_url, theirs) in types.iter().zip(case.types) {
        let make = || pilot::generate(&snapshot, &proxy, type_url, &Wanted::All);
        let ours = least(allocated, make);
        row(case.name, type_url.short(), &make(), ours, theirs);
    }
    // What each further proxy of the same kind takes: nothing is made again.
    let plane = Plane::new(&settings(), objects);
    let connect = |index: usize| {
        let proxy = self::proxy(case.is_router, &format!("1.1.{}.{}", 1 + index / 250, index % 250), "v1")?;
        Simulated::connect(&plane, proxy, Variant::Delta, |name| name.starts_with("outbound|"), &["80"])
    };
    connect(1)?;
    let mut index = 1;
    let further = least(allocated, || {
        index += 1;
        connect(index)
    });
    let sum = case.types.iter().flatten().fold((0.0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    row(case.name, "further proxy", &[], further, Some(sum));
    Ok(())
}

/// Services, and endpoints of each.
const SHAPES: [(usize, usize, Option<Figure>); 4] = [
    (100, 1, Some((2.615, 518_951))),
    (10, 10, Some((1.647, 355_192))),
    (10, 100, Some((13.306, 3_383_511))),
    (1, 1000, Some((7.348, 3_346_840))),
];

fn endpoints(allocated: Allocated) -> anyhow::Result<()> {
    for (services, endpoints, theirs) in SHAPES {
        let name = format!("endpoints {endpoints}/{services}");
        let plane = Plane::new(&settings(), objects(&mesh(services, endpoints))?);
        let proxy = proxy(false, "1.1.1.1", "v0")?;
        let wanted = Wanted::Names((0..services).map(|index| cluster(index).as_str().into()).collect());
        let make = || pilot::generate(&plane.snapshot, &proxy, &TypeUrl::Endpoint, &wanted);
        let ours = least(allocated, make);
        row(&name, "EDS", &make(), ours, theirs);
    }
    change(allocated)
}

fn cluster(index: usize) -> String {
    format!("outbound|80||svc-{index}.default.svc.cluster.local")
}

/// One endpoint of one of many services changes.
fn change(allocated: Allocated) -> anyhow::Result<()> {
    const SERVICES: usize = 1000;
    let mut plane = Plane::new(&settings(), objects(&mesh(SERVICES, 10))?);
    let connect = |index: usize| {
        let proxy = proxy(false, &format!("1.1.1.{index}"), "v0")?;
        Simulated::connect(&plane, proxy, Variant::Delta, |name| name.starts_with("outbound|"), &["80"])
    };
    let (mut first, mut second) = (connect(1)?, connect(2)?);
    // Only what the changes bring counts.
    drop((first.take(), second.take()));
    let slices = [objects(&slice(7, 10, 0))?, objects(&slice(7, 10, 1))?];
    let mut turn = 0;
    let (mut index, mut one, mut other) = ((f64::MAX, u64::MAX), (f64::MAX, u64::MAX), (f64::MAX, u64::MAX));
    let keep = |best: &mut Figure, start: Instant, before: u64| {
        *best = (best.0.min(start.elapsed().as_secs_f64() * 1000.0), best.1.min(allocated() - before));
    };
    let begin = Instant::now();
    while begin.elapsed() < 2 * LONG_ENOUGH {
        turn += 1;
        let change = slices[turn % 2].clone();
        let (start, before) = (Instant::now(), allocated());
        ensure!(plane.change(change, &[]), "nothing has changed");
        keep(&mut index, start, before);
        for (client, best) in [(&mut first, &mut one), (&mut second, &mut other)] {
            let (start, before) = (Instant::now(), allocated());
            client.push(&plane)?;
            keep(best, start, before);
            let pushed = client.take();
            ensure!(
                pushed.len() == 1 && pushed[0].resources.len() == 1,
                "one assignment and nothing else is pushed: {pushed:?}"
            );
        }
    }
    row("1 of 10,000 endpoints", "index", &[], index, None);
    row("1 of 10,000 endpoints", "first proxy", &[], one, None);
    row("1 of 10,000 endpoints", "further proxy", &[], other, None);
    Ok(())
}

/// Services of Kubernetes with that many endpoints each.
#[must_use]
pub fn mesh(services: usize, endpoints: usize) -> String {
    (0..services).map(|index| service(index) + &slice(index, endpoints, 0)).collect()
}

/// One of them.
#[must_use]
pub fn service(index: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{index}, namespace: default}}\nspec: \
         {{clusterIP: 10.{}.{}.{}, selector: {{app: svc-{index}}}, ports: [{{name: http, port: 80, targetPort: \
         8080}}]}}\n",
        96 + index / 62_500,
        index / 250 % 250,
        index % 250 + 1
    )
}

/// Its endpoints; another `turn` moves the last one.
#[must_use]
pub fn slice(index: usize, endpoints: usize, turn: u32) -> String {
    let mut addresses: Vec<String> = (0..endpoints)
        .map(|endpoint| {
            let number = index * endpoints + endpoint;
            format!("10.{}.{}.{}", 128 + number / 62_500, number / 250 % 250, number % 250 + 1)
        })
        .collect();
    if turn > 0
        && let Some(last) = addresses.last_mut()
    {
        *last = format!("11.{}.{}.{}", turn >> 16 & 255, turn >> 8 & 255, turn & 255);
    }
    let endpoints: Vec<String> =
        addresses.iter().map(|address| format!("{{addresses: [{address}]}}")).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc-{index}, namespace: \
         default, labels: {{kubernetes.io/service-name: svc-{index}}}}}\naddressType: IPv4\nendpoints: \
         [{}]\nports: [{{name: http, port: 8080}}]\n",
        endpoints.join(", ")
    )
}
