//! What VirtualServices do to requests: one rule for each entry of a table, asked
//! from the pod of productpage.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::Method;
use istio_tests::app::PORT;
use istio_tests::client::{Answer, Ask};
use istio_tests::mesh::Mesh;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("requests_are_routed_and_changed_as_the_table_says", table),
    ("requests_are_shared_out_by_weight", weights),
    ("faults_come_in_the_share_that_is_asked_for", faults),
    ("failed_requests_are_sent_again", retries),
    ("a_request_that_takes_too_long_is_given_up", timeout),
    ("copies_of_requests_arrive", mirrors),
    ("a_port_of_an_unknown_protocol_is_seen_as_http_by_its_server", announced),
];

/// The file that the rules are in.
const FILE: &str = "routes.yaml";

/// All of them: each matches a path of its own. `/headers` and `/status/CODE` are
/// what the application has.
const RULES: &str = r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings-routes, namespace: default}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {exact: /in-force}}]
    directResponse: {status: 299}
  - match: [{uri: {prefix: /set}}]
    rewrite: {uri: /headers}
    headers:
      request: {set: {x-set: new}, add: {x-add: second}, remove: [x-remove]}
      response: {set: {x-answer: set}, add: {x-more: added}, remove: [x-envoy-upstream-service-time]}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /target}}]
    rewrite: {uri: /headers}
    route: [{destination: {host: ratings}, headers: {request: {set: {x-target: one, Host: target.example}}}}]
  - match: [{uri: {prefix: /authority}}]
    rewrite: {uri: /headers, authority: rewritten.example}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /regex/}}]
    rewrite: {uriRegexRewrite: {match: '^/regex/([^/]+)/.*$', rewrite: '/\1'}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /redirect/uri}}]
    redirect: {uri: /elsewhere, authority: other.example}
  - match: [{uri: {exact: /redirect/port}}]
    redirect: {scheme: https, port: 8443, redirectCode: 307}
  - match: [{uri: {exact: /redirect/default}}]
    redirect: {scheme: https, port: 443, redirectCode: 308}
  - match: [{uri: {exact: /redirect/derived}}]
    redirect: {authority: other.example, derivePort: FROM_REQUEST_PORT, redirectCode: 302}
  - match: [{uri: {prefix: /redirect/prefix}}]
    redirect: {prefixRewrite: /new, redirectCode: 303}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /cors}}]
    rewrite: {uri: /headers}
    corsPolicy:
      allowOrigins: [{exact: 'https://good.example'}, {regex: 'https://.*\.better\.example'}]
      allowMethods: [POST, GET]
      allowHeaders: [x-one, x-two]
      exposeHeaders: [x-three]
      maxAge: 24h
      allowCredentials: true
    route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /without}, withoutHeaders: {x-skip: {}}}]
    directResponse: {status: 211}
  - match: [{uri: {exact: /without}, withoutHeaders: {x-skip: {exact: much}}}]
    directResponse: {status: 212}
  - match: [{uri: {exact: /without}}]
    directResponse: {status: 213}
  - match: [{uri: {prefix: /match}, headers: {x-kind: {regex: '[a-c]+'}, ':method': {exact: GET}}}]
    directResponse: {status: 221}
  - match: [{uri: {prefix: /match}, queryParams: {kind: {prefix: ab}}}]
    directResponse: {status: 222}
  - match: [{uri: {prefix: /match}, method: {exact: PUT}}, {uri: {prefix: /match}, authority: {prefix: 'ratings.default.svc'}}]
    directResponse: {status: 223}
  - match: [{uri: {prefix: /match}, sourceLabels: {app: somebody-else}}]
    directResponse: {status: 224}
  - match: [{uri: {prefix: /match}, port: 9081}]
    directResponse: {status: 225}
  - match: [{uri: {prefix: /MATCH}, ignoreUriCase: true, sourceLabels: {app: productpage}}]
    directResponse: {status: 226}
  - match: [{uri: {prefix: /delegate}}]
    headers: {response: {set: {x-root: filled}}}
    delegate: {name: ratings-delegate}
  - match: [{uri: {exact: /nobody}}]
    delegate: {name: nobody}
  - match: [{uri: {exact: /grpc}}]
    fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /half}}]
    rewrite: {uri: /headers}
    fault: {abort: {httpStatus: 555, percentage: {value: 50}}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /late}}]
    rewrite: {uri: /headers}
    fault: {delay: {fixedDelay: 1s, percentage: {value: 100}}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /weights}}]
    rewrite: {uri: /headers}
    route:
    - {destination: {host: ratings}, weight: 80}
    - {destination: {host: details}, weight: 20, headers: {request: {set: {x-share: small}}}}
  - match: [{uri: {prefix: /status/}}]
    retries: {attempts: 3, retryOn: '503', backoff: 1ms}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /ratings/}, headers: {end-user: {exact: slow}}}]
    fault: {delay: {fixedDelay: 4s, percentage: {value: 100}}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /reviews/}}]
    timeout: 500ms
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {exact: /copied}}]
    rewrite: {uri: /headers}
    mirrors: [{destination: {host: details}}, {destination: {host: ratings}, percentage: {value: 0}}]
    route: [{destination: {host: ratings}}]
  - route: [{destination: {host: ratings}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings-delegate, namespace: default}
spec:
  http:
  - match: [{uri: {exact: /delegate/one}}]
    directResponse: {status: 231}
  - match: [{uri: {prefix: /other}}]
    directResponse: {status: 232}
  - directResponse: {status: 233}
";

/// A request, and what is to become of it.
#[derive(Default)]
struct Row {
    method: Option<Method>,
    path: &'static str,
    host: &'static str,
    headers: &'static [(&'static str, &'static str)],
    status: u16,
    /// Headers of the answer; empty for one that must not be there.
    answers: &'static [(&'static str, &'static str)],
    /// Headers that the server sees; empty for one that must not be there.
    sees: &'static [(&'static str, &'static str)],
}

impl Row {
    fn new(path: &'static str, status: u16) -> Self {
        Self { path, status, ..Self::default() }
    }
}

fn rows() -> Vec<Row> {
    let preflight = Row {
        method: Some(Method::OPTIONS),
        headers: &[("origin", "https://good.example"), ("access-control-request-method", "POST")],
        ..Row::new("/cors", 200)
    };
    vec![
        Row {
            headers: &[("x-set", "old"), ("x-add", "first"), ("x-remove", "gone")],
            answers: &[("x-answer", "set"), ("x-more", "added"), ("x-envoy-upstream-service-time", "")],
            sees: &[("x-set", "new"), ("x-remove", "")],
            ..Row::new("/set", 200)
        },
        Row { sees: &[("x-target", "one"), ("host", "target.example")], ..Row::new("/target", 200) },
        Row { sees: &[("host", "rewritten.example")], ..Row::new("/authority", 200) },
        Row { sees: &[("x-envoy-original-path", "/regex/headers/x")], ..Row::new("/regex/headers/x", 200) },
        Row { answers: &[("location", "http://other.example/elsewhere")], ..Row::new("/redirect/uri", 301) },
        Row {
            answers: &[("location", "https://ratings:8443/redirect/port")],
            ..Row::new("/redirect/port", 307)
        },
        Row {
            host: "ratings",
            answers: &[("location", "https://ratings/redirect/default")],
            ..Row::new("/redirect/default", 308)
        },
        Row {
            answers: &[("location", "http://other.example:9080/redirect/derived")],
            ..Row::new("/redirect/derived", 302)
        },
        Row { answers: &[("location", "http://ratings:9080/new/x")], ..Row::new("/redirect/prefix/x", 303) },
        Row::new("/teapot", 418),
        Row {
            answers: &[
                ("access-control-allow-origin", "https://good.example"),
                ("access-control-allow-methods", "POST,GET"),
                ("access-control-allow-headers", "x-one,x-two"),
                ("access-control-max-age", "86400"),
                ("access-control-allow-credentials", "true"),
            ],
            ..preflight
        },
        Row {
            headers: &[("origin", "https://a.better.example")],
            answers: &[
                ("access-control-allow-origin", "https://a.better.example"),
                ("access-control-expose-headers", "x-three"),
            ],
            ..Row::new("/cors", 200)
        },
        Row {
            headers: &[("origin", "https://bad.example")],
            answers: &[("access-control-allow-origin", "")],
            ..Row::new("/cors", 200)
        },
        Row::new("/without", 211),
        Row { headers: &[("x-skip", "little")], ..Row::new("/without", 212) },
        Row { headers: &[("x-skip", "much")], ..Row::new("/without", 213) },
        Row { headers: &[("x-kind", "abc")], ..Row::new("/match", 221) },
        Row { headers: &[("x-kind", "abcd")], ..Row::new("/match", 226) },
        Row::new("/match?kind=abc", 222),
        Row { method: Some(Method::PUT), ..Row::new("/match", 223) },
        Row { host: "ratings.default.svc.cluster.local", ..Row::new("/match", 223) },
        Row { host: "ratings.default:9080", ..Row::new("/mAtCh", 226) },
        Row { host: "10.96.0.13:9080", ..Row::new("/match", 226) },
        Row { answers: &[("x-root", "filled")], ..Row::new("/delegate/one", 231) },
        Row { answers: &[("x-root", "filled")], ..Row::new("/delegate/two", 233) },
        Row::new("/nobody", 404),
        Row {
            headers: &[("content-type", "application/grpc")],
            answers: &[("grpc-status", "14")],
            ..Row::new("/grpc", 200)
        },
    ]
}

fn ask(path: &str) -> Ask {
    Ask::get(SocketAddr::from(([10, 96, 0, 13], PORT)), "ratings:9080", path)
}

fn send(mesh: &Mesh, path: &str) -> anyhow::Result<Answer> {
    ask(path).from(&mesh.pod("productpage-v1")?.network)
}

/// Brings the rules in force, and takes them away after the check.
fn with_rules(mesh: &mut Mesh, check: fn(&Mesh) -> anyhow::Result<()>) -> anyhow::Result<()> {
    mesh.write(FILE, RULES)?;
    Mesh::wait("the rules", || {
        let status = send(mesh, "/in-force")?.status;
        ensure!(status == 299, "{status}");
        Ok(())
    })?;
    mesh.wait_synced()?;
    let checked = check(mesh);
    std::fs::remove_file(mesh.objects.join(FILE))?;
    Mesh::wait("no rules", || {
        let status = send(mesh, "/in-force")?.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })?;
    checked
}

fn table(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| rows().iter().try_for_each(|row| check(mesh, row)))
}

fn check(mesh: &Mesh, row: &Row) -> anyhow::Result<()> {
    let mut ask = ask(row.path);
    if let Some(method) = &row.method {
        ask = ask.method(method.clone());
    }
    if !row.host.is_empty() {
        ask.host = row.host.to_owned();
    }
    for (name, value) in row.headers {
        ask = ask.header(name, value);
    }
    let answer = ask.from(&mesh.pod("productpage-v1")?.network)?;
    ensure!(answer.status == row.status, "{}: {} {}", row.path, answer.status, answer.body);
    for (name, wanted) in row.answers {
        let seen = answer.headers.get(*name).map_or(Ok(""), |value| value.to_str())?;
        ensure!(seen == *wanted, "{}: {name} is {seen:?}, not {wanted:?}", row.path);
    }
    if !row.sees.is_empty() {
        let headers = &answer.json()?["headers"];
        for (name, wanted) in row.sees {
            let seen = headers[*name].as_str().unwrap_or_default();
            ensure!(seen == *wanted, "{}: the server sees {name} as {seen:?}, not {wanted:?}", row.path);
        }
    }
    Ok(())
}

/// How many of that many requests something is true of.
fn count(mesh: &Mesh, path: &str, all: u32, is: impl Fn(&Answer) -> bool) -> anyhow::Result<u32> {
    let mut count = 0;
    for _ in 0..all {
        count += u32::from(is(&send(mesh, path)?));
    }
    Ok(count)
}

fn weights(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| {
        // 40 of 200, with five standard deviations (5.7) to each side.
        let small = |answer: &Answer| answer.body.contains("\"details\"") && answer.body.contains("x-share");
        let seen = count(mesh, "/weights", 200, small)?;
        ensure!((12..=68).contains(&seen), "{seen} of 200 went to the share of 20 %");
        Ok(())
    })
}

fn faults(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| {
        // 100 of 200, with five standard deviations (7.1) to each side.
        let seen = count(mesh, "/half", 200, |answer| answer.status == 555)?;
        ensure!((65..=135).contains(&seen), "{seen} of 200 were aborted, not the half");
        let start = Instant::now();
        let answer = send(mesh, "/late")?;
        let (time, status) = (start.elapsed(), answer.status);
        // The delay is a second, of timers that may fire some milliseconds early: Envoy counts
        // from when its loop last looked at the clock.
        ensure!(status == 200 && time >= Duration::from_millis(900), "{status} after {time:?}");
        Ok(())
    })
}

/// Requests that productpage's Envoy sent to a service, by what the counter says.
fn stat(mesh: &Mesh, service: &str, counter: &str) -> anyhow::Result<u64> {
    let cluster = format!("outbound|9080||{service}.default.svc.cluster.local");
    mesh.pod("productpage-v1")?.stat(&format!("cluster.{cluster};.{counter}"))
}

fn retries(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| {
        let retried = || stat(mesh, "ratings", "upstream_rq_retry");
        let before = retried()?;
        let status = send(mesh, "/status/503")?.status;
        ensure!(status == 503, "{status}");
        let after = retried()?;
        ensure!(after == before + 3, "tried again {} times, not 3", after - before);
        let status = send(mesh, "/status/500")?.status;
        ensure!(status == 500 && retried()? == after, "{status} was tried again");
        Ok(())
    })
}

fn timeout(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| {
        let network = &mesh.pod("productpage-v1")?.network;
        let status = ask("/reviews/0").from(network)?.status;
        ensure!(status == 200, "{status}");
        // reviews waits for ratings, which its sidecar delays.
        let status = ask("/reviews/0").header("end-user", "slow").from(network)?.status;
        ensure!(status == 504, "{status}");
        Ok(())
    })
}

fn mirrors(mesh: &mut Mesh) -> anyhow::Result<()> {
    with_rules(mesh, |mesh| {
        // The counter comes with the first answer.
        let answered = || stat(mesh, "details", "upstream_rq_2xx").unwrap_or(0);
        let (copies, own) = (answered(), stat(mesh, "ratings", "upstream_rq_total")?);
        for _ in 0..20 {
            let answer = send(mesh, "/copied")?;
            ensure!(answer.status == 200 && answer.json()?["name"] == "ratings", "{}", answer.body);
        }
        Mesh::wait("20 answers to copies", || {
            let seen = answered().saturating_sub(copies);
            ensure!(seen == 20, "{seen}");
            Ok(())
        })?;
        let seen = stat(mesh, "ratings", "upstream_rq_total")? - own;
        ensure!(seen == 20, "{seen} requests to ratings, of which no copy was asked for");
        Ok(())
    })
}

fn announced(mesh: &mut Mesh) -> anyhow::Result<()> {
    let text = mesh.read("bookinfo.yaml")?;
    // The port of ratings loses its name, and with it its protocol.
    let mut parts: Vec<String> = text.split("\n---\n").map(str::to_owned).collect();
    for part in parts
        .iter_mut()
        .filter(|part| part.contains("  name: ratings\n") || part.contains("  name: ratings-1\n"))
    {
        *part = part
            .replace("  - name: http\n    port: 9080\n", "  - port: 9080\n")
            .replace("- {name: http, port: 9080, protocol: TCP}", "- {port: 9080, protocol: TCP}");
    }
    mesh.write("bookinfo.yaml", &parts.join("\n---\n"))?;
    // Listeners of such ports have routes of their own.
    let name = "\"route_config_name\":\"ratings.default.svc.cluster.local:9080\"";
    let routed = Mesh::wait("routes of the port's own", || {
        let dump = mesh.pod("productpage-v1")?.config_dump()?.to_string();
        ensure!(dump.contains(name), "no routes {name}");
        Ok(())
    });
    let checked = routed.and_then(|()| {
        mesh.wait_synced()?;
        Mesh::wait("an identity at an undeclared port", || {
            let answer = send(mesh, "/headers")?;
            ensure!(answer.status == 200, "{}", answer.status);
            let caller = answer.json()?["headers"]["x-forwarded-client-cert"].to_string();
            // Only a server that reads requests tells who sent them.
            ensure!(caller.contains("sa/bookinfo-productpage"), "{caller}");
            Ok(())
        })
    });
    mesh.write("bookinfo.yaml", &text)?;
    mesh.wait_synced()?;
    checked
}
