//! The injector's settings in two files, as a ConfigMap is mounted: `config`
//! and `values`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inject::Settings;
use mesh::MeshConfig;
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

/// What is told beside the files.
#[derive(Clone, Debug)]
pub struct Known {
    /// Settings of the mesh.
    pub mesh: Arc<MeshConfig>,
    /// Revision of the control plane.
    pub revision: String,
    /// Rules of cryptography.
    pub compliance_policy: String,
}

/// Follows the files of a directory; `None` when it is not there: nobody wants
/// injection then.
pub fn watch(tasks: &Tasks, dir: &Path, known: Known) -> Option<Current> {
    if !dir.is_dir() {
        info!(target: "inject", dir = %dir.display(), "no settings of the injector are there: it is off");
        return None;
    }
    // Watching begins before reading: what changes in between is read again.
    let files = Files::start(tasks, |path, error| {
        warn!(target: "inject", path = %path.display(), %error, "not watched by the kernel: looked at every second");
    });
    let mut changes = files.watch(&[dir.join(CONFIG), dir.join(VALUES)]);
    let first = read(dir, &known);
    let mut texts = first.as_ref().ok().map(|(texts, _)| texts.clone());
    let (publish, current) = watch::channel(take(first));
    let dir = dir.to_owned();
    tasks.spawn("injector settings", async move {
        loop {
            changes.changed().await;
            tokio::time::sleep(SETTLE).await;
            let next = read(&dir, &known);
            // Only what differs is a change.
            let new = match &next {
                Ok((new, _)) | Err((Some(new), _)) => Some(new.clone()),
                Err((None, _)) => None,
            };
            if new.is_some() && texts == new {
                continue;
            }
            texts = new;
            if let Some(next) = take(next) {
                publish.send_replace(Some(next));
                info!(target: "inject", "settings of the injector have changed");
            }
        }
    });
    Some(current)
}

type Texts = (String, String);

fn read(dir: &Path, known: &Known) -> Result<(Texts, Settings), (Option<Texts>, String)> {
    let text = |name: &str| {
        let path = dir.join(name);
        let read = source::file::read(&path).map(|(text, _)| text);
        read.map_err(|error| (None, format!("{}: {error}", path.display())))
    };
    let texts = (text(CONFIG)?, text(VALUES)?);
    match parse(&texts.0, &texts.1, known) {
        Ok(settings) => Ok((texts, settings)),
        Err(why) => Err((Some(texts), why)),
    }
}

/// Reads the two documents.
pub(super) fn parse(config: &str, values: &str, known: &Known) -> Result<Settings, String> {
    let read = Settings::read(config, values, known.mesh.clone(), &known.revision);
    let mut settings = read.map_err(|error| error.to_string())?;
    settings.compliance_policy.clone_from(&known.compliance_policy);
    for warning in &settings.warnings {
        warn!(target: "inject", "{warning}");
    }
    Ok(settings)
}

/// The settings, or what is said about why there are none.
fn take(read: Result<(Texts, Settings), (Option<Texts>, String)>) -> Option<Arc<Settings>> {
    match read {
        Ok((_, settings)) => Some(Arc::new(settings)),
        Err((_, why)) => {
            warn!(target: "inject", "settings of the injector cannot be used; the last good ones stay: {why}");
            None
        }
    }
}
