//! Tables of cases: objects, settings of the mesh, and who asks what with which
//! outcome.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use http::Method;
use istio_tests::client::{Answer, Ask, LIMIT};
use istio_tests::mesh::Mesh;
use istio_tests::netns;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tokens::tokens;
use super::{PLACES, SETTINGS};

/// The file with the objects of the case that runs.
const FILE: &str = "case.yaml";
/// Longest wait for requests to end as they should, once all proxies have the
/// objects: a table with much that is wrong should be done soon, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// One case of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What it is about.
    name: String,
    /// Settings of the mesh over the usual ones.
    #[serde(default)]
    mesh: String,
    /// What is applied.
    #[serde(default)]
    objects: String,
    /// A [`Request`] a line.
    wanted: Vec<String>,
}

/// Goes through a table. All that fails is told.
pub(crate) fn run(mesh: &mut Mesh, table: &str) -> anyhow::Result<()> {
    run_with(mesh, table, &[])
}

/// The same, with further words that are replaced in the objects.
pub(crate) fn run_with(mesh: &mut Mesh, table: &str, words: &[(&str, &str)]) -> anyhow::Result<()> {
    let entries: Vec<Entry> = serde_saphyr::from_str(table).context("the table")?;
    ensure!(!entries.is_empty(), "an empty table");
    let mut failed = Vec::new();
    let mut settings = String::new();
    for entry in &entries {
        if entry.mesh != settings {
            mesh.set(&format!("{SETTINGS}{}", entry.mesh))?;
            settings.clone_from(&entry.mesh);
        }
        if let Err(error) = one(mesh, entry, words) {
            failed.push(format!("{}:\n{error:#}", entry.name));
        }
    }
    if !settings.is_empty() {
        mesh.set(SETTINGS)?;
    }
    apply(mesh, "")?;
    ensure!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), entries.len(), failed.join("\n"));
    Ok(())
}

fn one(mesh: &Mesh, entry: &Entry, words: &[(&str, &str)]) -> anyhow::Result<()> {
    ensure!(!entry.wanted.is_empty(), "nothing is asked");
    let requests: Vec<Request> = entry.wanted.iter().map(|line| line.parse()).collect::<Result<_, _>>()?;
    let mut objects = entry.objects.replace("$KEYS", &tokens()?.keys);
    for (word, text) in words {
        objects = objects.replace(word, text);
    }
    apply(mesh, &objects)?;
    agree(mesh, &requests)?;
    // Again with all that is on its way in force: it was not the case before that was seen.
    mesh.wait_synced()?;
    agree(mesh, &requests)
}

/// Replaces the objects and waits until every proxy has taken them.
pub(crate) fn apply(mesh: &Mesh, objects: &str) -> anyhow::Result<()> {
    let version = || Ok::<_, anyhow::Error>(mesh.istiod.page("/debug/sourcez")?["version"].clone());
    // A file that is not there is as an empty one.
    if mesh.read(FILE).unwrap_or_default() == objects {
        return mesh.wait_synced();
    }
    let before = version()?;
    mesh.write(FILE, objects)?;
    Mesh::wait("the objects are read", || {
        ensure!(version()? != before, "still {before}; {}", problems(mesh)?);
        Ok(())
    })?;
    mesh.wait_synced()
}

/// What istiod says of the objects.
fn problems(mesh: &Mesh) -> anyhow::Result<String> {
    Ok(format!("istiod says: {}", mesh.istiod.page("/debug/sourcez")?["problems"]))
}

/// Waits until all requests end as they should.
fn agree(mesh: &Mesh, requests: &[Request]) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut wrong = Vec::new();
        for request in requests {
            match request.check(mesh) {
                Ok(()) => {}
                Err(error) => wrong.push(format!("    {}: {error:#}", request.line)),
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{}\n    {}", wrong.join("\n"), problems(mesh)?);
        }
        netns::pause();
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// With a status.
    Status(u16),
    /// Bytes come back.
    Echo,
    /// The connection ends without an answer.
    Closed,
    /// As a filter of requests or one of connections refuses: status 403 or closed.
    Denied,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "{code}"),
            Self::Echo => f.write_str("echo"),
            Self::Closed => f.write_str("closed"),
            Self::Denied => f.write_str("denied"),
        }
    }
}

/// Who asks what, and what comes of it: `WHO PLACE[:PORT][/PATH] OUTCOME [OPTION...]`.
///
/// The outcome is a status, `echo` (of a port of bytes), `closed` or `denied`.
/// Options: a method in capitals, `mtls` or `plain` (as the application saw
/// it), `direct` (to the pod instead of its Service), `token=NAME`,
/// `host=NAME`, `saw:NAME=VALUE`, `saw:!NAME` (headers that the application
/// saw or did not see), and else `NAME=VALUE`, a header. `~` in a value stands
/// for a space.
#[derive(Debug)]
struct Request {
    line: String,
    who: String,
    place: &'static Spot,
    port: u16,
    path: String,
    outcome: Outcome,
    method: Method,
    is_direct: bool,
    is_mutual: Option<bool>,
    host: Option<String>,
    headers: Vec<(String, String)>,
    seen: Vec<(String, Option<String>)>,
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let mut words = line.split_whitespace();
        let mut next = |what: &str| words.next().with_context(|| format!("{line:?}: {what} is missing"));
        let (who, target, outcome) = (next("who asks")?, next("what is asked")?, next("the outcome")?);
        let (place, path) = target.split_at(target.find('/').unwrap_or(target.len()));
        let (name, port) = place.split_once(':').unwrap_or((place, "0"));
        let place = PLACES.iter().find(|spot| spot.name == name);
        let place = place.with_context(|| format!("{line:?}: there is no {name:?}"))?;
        let port = match port.parse()? {
            0 => place.port,
            port => port,
        };
        let fill = |text: &str| -> anyhow::Result<String> { Ok(tokens()?.fill(&text.replace('~', " "))) };
        let mut request = Self {
            line: line.to_owned(),
            who: who.to_owned(),
            place,
            port,
            path: if path.is_empty() { "/".to_owned() } else { tokens()?.fill(path) },
            outcome: match outcome {
                "echo" => Outcome::Echo,
                "closed" => Outcome::Closed,
                "denied" => Outcome::Denied,
                code => Outcome::Status(code.parse().with_context(|| format!("{line:?}: {code}"))?),
            },
            method: Method::GET,
            is_direct: false,
            is_mutual: None,
            host: None,
            headers: Vec::new(),
            seen: Vec::new(),
        };
        for word in words {
            if let Some(header) = word.strip_prefix("saw:") {
                let (name, value) = match header.strip_prefix('!') {
                    Some(name) => (name, None),
                    None => {
                        let (name, value) = header.split_once('=').with_context(|| word.to_owned())?;
                        (name, Some(fill(value)?))
                    }
                };
                request.seen.push((name.to_owned(), value));
            } else if let Some((name, value)) = word.split_once('=') {
                let value = fill(value)?;
                match name {
                    "token" => {
                        let token = tokens()?.fill(&format!("Bearer {{{value}}}"));
                        request.headers.push(("authorization".into(), token));
                    }
                    "host" => request.host = Some(value),
                    name => request.headers.push((name.to_owned(), value)),
                }
            } else {
                match word {
                    "mtls" => request.is_mutual = Some(true),
                    "plain" => request.is_mutual = Some(false),
                    "direct" => request.is_direct = true,
                    method => request.method = method.parse()?,
                }
            }
        }
        Ok(request)
    }
}

impl Request {
    fn check(&self, mesh: &Mesh) -> anyhow::Result<()> {
        let pod = mesh.pod(&self.who)?;
        // Who has no proxy has nothing that knows addresses of Services.
        let is_direct = self.is_direct || pod.workload.is_bare();
        let address = if is_direct { self.place.pod } else { self.place.service };
        let address = SocketAddr::from((address, self.port));
        if self.place.bytes.contains(&self.port) {
            let outcome = bytes(&pod.network, address)?;
            ensure!(self.fits(outcome), "{outcome}");
            return Ok(());
        }
        let host = self.host.clone().unwrap_or_else(|| format!("{}:{}", self.place.host, self.port));
        let mut ask = Ask::get(address, &host, &self.path).method(self.method.clone());
        ask.headers.clone_from(&self.headers);
        let answer = match ask.from(&pod.network) {
            Ok(answer) => answer,
            Err(error) => {
                let is_closed = error.chain().any(|cause| {
                    cause.is::<hyper::Error>() || cause.downcast_ref::<std::io::Error>().is_some()
                });
                ensure!(is_closed, error);
                ensure!(self.fits(Outcome::Closed), "closed");
                return Ok(());
            }
        };
        let outcome = Outcome::Status(answer.status.as_u16());
        ensure!(self.fits(outcome), "{outcome}: {}", answer.body.trim());
        self.look(&answer)
    }

    fn fits(&self, outcome: Outcome) -> bool {
        let is_refusal = matches!(outcome, Outcome::Status(403) | Outcome::Closed);
        outcome == self.outcome || (self.outcome == Outcome::Denied && is_refusal)
    }

    /// What the application saw.
    fn look(&self, answer: &Answer) -> anyhow::Result<()> {
        if self.is_mutual.is_none() && self.seen.is_empty() {
            return Ok(());
        }
        let page = answer.json()?;
        let header = |name: &str| page["headers"][name].as_str();
        if let Some(is_mutual) = self.is_mutual {
            let caller = header("x-forwarded-client-cert");
            let is_told = caller.is_some_and(|caller| caller.contains("URI=spiffe://"));
            ensure!(is_told == is_mutual, "the caller's certificate is {caller:?}");
        }
        for (name, value) in &self.seen {
            let seen = header(name);
            ensure!(seen == value.as_deref(), "the application saw {name}: {seen:?}, not {value:?}");
        }
        Ok(())
    }
}

/// What is sent to ports of bytes. Where HTTP is possible, Envoy waits for the end of
/// the line before it takes it for something else.
const HELLO: &[u8; 6] = b"hello\n";

/// Sends bytes and waits for them.
fn bytes(network: &str, address: SocketAddr) -> anyhow::Result<Outcome> {
    netns::within(network, || async {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(HELLO).await?;
            let mut echo = [0; HELLO.len()];
            stream.read_exact(&mut echo).await?;
            Ok::<_, std::io::Error>(echo)
        };
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(Ok(echo)) if &echo == HELLO => Ok(Outcome::Echo),
            Ok(Ok(other)) => bail!("{other:?} came back"),
            Ok(Err(_)) => Ok(Outcome::Closed),
            Err(_) => bail!("no answer within {LIMIT:?}"),
        }
    })
}

/// A place that is asked.
#[derive(Debug)]
pub(crate) struct Spot {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Name of the host in requests.
    pub(crate) host: &'static str,
    /// Address of its Service.
    pub(crate) service: Ipv4Addr,
    /// Address of its pod.
    pub(crate) pod: Ipv4Addr,
    /// The port when none is named.
    pub(crate) port: u16,
    /// The ports that return every byte.
    pub(crate) bytes: &'static [u16],
}
