//! The injector's settings in two files, as a ConfigMap is mounted: `config`
//! and `values`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inject::Settings;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::sync::watch;
use tracing::{info, warn};

/// The settings in force; none before the first that can be used.
pub type Current = watch::Receiver<Option<Arc<Settings>>>;

/// Several writes in a row are one change.
const SETTLE: Duration = Duration::from_millis(100);
/// The file with policy, selectors and templates.
pub(super) const CONFIG: &str = "config";
/// The file with Helm's values.
pub(super) const VALUES: &str = "values";

/// What is told beside the documents.
#[derive(Clone, Debug)]
pub struct Known {
    /// Revision of the control plane.
    pub revision: String,
    /// Rules of cryptography.
    pub compliance_policy: String,
    /// The platform of the cluster.
    pub platform: String,
}

/// The texts of the two documents.
pub(super) type Texts = (String, String);

/// Follows the files of a directory; `None` when it is not there: nobody wants
/// injection then.
pub fn watch(tasks: &Tasks, files: &Files, dir: &Path, known: Known) -> Option<Current> {
    if !dir.is_dir() {
        info!(target: "inject", dir = %dir.display(), "no settings of the injector are there: it is off");
        return None;
    }
    let paths = [dir.join(CONFIG), dir.join(VALUES)];
    // Watching begins before reading: what changes in between is read again.
    let mut changes = files.watch(&paths);
    let (publish, current) = watch::channel(None);
    let from = dir.display().to_string();
    let mut last = read(&paths);
    put(last.clone(), &from, &known, &publish);
    tasks.spawn("injector settings", async move {
        loop {
            changes.changed().await;
            tokio::time::sleep(SETTLE).await;
            let now = read(&paths);
            // Only what differs is a change.
            if now != last {
                last = now.clone();
                put(now, &from, &known, &publish);
            }
        }
    });
    Some(current)
}

fn read([config, values]: &[PathBuf; 2]) -> Result<Texts, String> {
    let text = |path: &PathBuf| {
        let read = source::file::read(path).map(|(text, _)| text);
        read.map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok((text(config)?, text(values)?))
}

/// Puts in force what can be used; what cannot leaves the last good settings.
pub(super) fn put(
    texts: Result<Texts, String>,
    from: &str,
    known: &Known,
    publish: &watch::Sender<Option<Arc<Settings>>>,
) {
    match texts.and_then(|(config, values)| parse(&config, &values, known)) {
        Ok(settings) => {
            info!(target: "inject", from, "settings of the injector are in force");
            publish.send_replace(Some(Arc::new(settings)));
        }
        Err(why) => warn!(target: "inject", "{from}: {why}; the last good settings stay in force"),
    }
}

fn parse(config: &str, values: &str, known: &Known) -> Result<Settings, String> {
    let read = Settings::read(config, values, &known.revision);
    let mut settings = read.map_err(|error| error.to_string())?;
    settings.compliance_policy.clone_from(&known.compliance_policy);
    settings.platform.clone_from(&known.platform);
    for warning in &settings.warnings {
        warn!(target: "inject", "{warning}");
    }
    Ok(settings)
}
