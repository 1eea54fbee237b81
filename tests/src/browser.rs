//! A real browser without a window, led by its DevTools protocol over a pipe: no
//! port is open, and nobody else can lead it.

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Names the program that `scripts/browser` finds.
pub const BROWSER: &str = "ISTIO_TEST_BROWSER";
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser's program; `None` where there is none and it need not be.
///
/// # Errors
/// When there is none and it must be.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn program() -> anyhow::Result<Option<PathBuf>> {
    let path = env::var(BROWSER).ok().map(PathBuf::from).filter(|path| path.is_file());
    let is_required = env::var(crate::program::REQUIRE).is_ok_and(|value| value == "1");
    ensure!(path.is_some() || !is_required, "{BROWSER} names no browser; run scripts/browser");
    Ok(path)
}

/// A page that is open; the browser ends when it is dropped.
pub struct Page {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    next: u64,
    /// What happened beside answers: requests, errors, what was logged.
    pub events: Vec<Value>,
    _profile: TempDir,
}

impl Page {
    /// Starts a browser with an empty page.
    ///
    /// # Errors
    /// When it does not start.
    pub fn open(program: &Path) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        // It reads from 3 and writes to 4.
        let mut command = Command::new("sh");
        command.arg("-c").arg("exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null").arg(program);
        command.args([
            "--remote-debugging-pipe",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ]);
        command.args([
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--disable-component-update",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let log = File::create(profile.path().join("log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = crate::netns::make(|| command.spawn().context("browser"))?;
        let input = process.stdin.take().context("input of the browser")?;
        let output = process.stdout.take().context("output of the browser")?;
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Self {
            process,
            input,
            messages,
            session: String::new(),
            next: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attached =
            page.call("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}))?;
        attached["sessionId"].as_str().context("session")?.clone_into(&mut page.session);
        for part in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{part}.enable"), &json!({}))?;
        }
        Ok(page)
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// When the browser refuses or does not answer.
    pub fn call(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.input
            .write_all(message.to_string().as_bytes())
            .and_then(|()| self.input.write_all(&[0]))
            .context("browser")?;
        let wanted = self.next;
        let answer = self.wait(method, |message| message["id"] == wanted)?;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }

    /// Waits for a message; others are kept.
    fn wait(&mut self, what: &str, is_meant: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) if is_meant(&message) => return Ok(message),
                Ok(message) => self.events.push(message),
                Err(_) => bail!("the browser did not answer to {what}"),
            }
        }
    }

    /// Goes to an address and waits until all of it is there.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn go(&mut self, url: &str) -> anyhow::Result<()> {
        self.events.clear();
        let answer = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        if !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.wait("load", |message| message["method"] == "Page.loadEventFired")?;
        }
        Ok(())
    }

    /// The value of an expression on the page.
    ///
    /// # Errors
    /// When it has none.
    pub fn value(&mut self, expression: &str) -> anyhow::Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &parameters)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Presses the key that goes on to what comes next.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn tab(&mut self) -> anyhow::Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9});
            self.call("Input.dispatchKeyEvent", &key)?;
        }
        Ok(())
    }

    /// The addresses of all that was asked for, from anywhere.
    pub fn requests(&self) -> Vec<String> {
        let all = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        all.map(|event| event["params"]["request"]["url"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What went wrong: errors of scripts, and what the browser itself complains of.
    pub fn complaints(&self) -> Vec<&Value> {
        let is_one = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || event["method"] == "Log.entryAdded"
                || event["method"] == "Runtime.consoleAPICalled"
        };
        self.events.iter().filter(is_one).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Asked, it ends its children, too.
        self.session.clear();
        self.call("Browser.close", &json!({})).ok();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && !matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
            crate::netns::pause();
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
