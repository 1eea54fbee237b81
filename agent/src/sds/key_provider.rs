//! Private keys that an accelerator works with (`privateKeyProvider` of the
//! ProxyConfig), for builds of Envoy that have it; the stock one has none.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use proto::envoy::config::core::v3::DataSource;

use crate::config::sds::{KeyProvider, ProviderKind};

/// Bytes of a program that are looked through at a time.
const CHUNK: usize = 1 << 20;

/// `CryptoMbPrivateKeyMethodConfig` and `QatPrivateKeyMethodConfig`, which are
/// the same but for their names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Method {
    /// The key.
    #[prost(message, optional, tag = "1")]
    pub private_key: Option<DataSource>,
    /// Longest wait for more requests before some are worked on.
    #[prost(message, optional, tag = "2")]
    pub poll_delay: Option<pbjson_types::Duration>,
}

impl ProviderKind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CryptoMb => "cryptomb",
            Self::Qat => "qat",
        }
    }

    /// Type of its configuration.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::CryptoMb => {
                "type.googleapis.com/envoy.extensions.private_key_providers.cryptomb.v3alpha.CryptoMbPrivateKeyMethodConfig"
            }
            Self::Qat => {
                "type.googleapis.com/envoy.extensions.private_key_providers.qat.v3alpha.QatPrivateKeyMethodConfig"
            }
        }
    }

    /// Whether a program of Envoy has it: the name of the package of its
    /// configuration is in every program that can read it.
    ///
    /// # Errors
    /// When the program cannot be read.
    pub fn is_in(self, program: &Path) -> io::Result<bool> {
        contains(&mut File::open(program)?, format!("private_key_providers.{}.", self.name()).as_bytes())
    }
}

/// The delay as Envoy takes it.
#[must_use]
pub fn delay(provider: &KeyProvider) -> Option<pbjson_types::Duration> {
    let KeyProvider { poll_delay, .. } = provider;
    let seconds = i64::try_from(poll_delay.as_secs()).ok()?;
    let nanos = i32::try_from(poll_delay.subsec_nanos()).ok()?;
    Some(pbjson_types::Duration { seconds, nanos })
}

fn contains(source: &mut impl io::Read, wanted: &[u8]) -> io::Result<bool> {
    let keep = wanted.len() - 1;
    let mut text = Vec::with_capacity(CHUNK + keep);
    loop {
        let overlap = text.len().saturating_sub(keep);
        text.drain(..overlap);
        let before = text.len();
        source.by_ref().take(CHUNK as u64).read_to_end(&mut text)?;
        if text.len() == before {
            return Ok(false);
        }
        if find(&text, wanted) {
            return Ok(true);
        }
    }
}

/// Looks for the first byte, which is found fast, and compares the rest there.
fn find(mut text: &[u8], wanted: &[u8]) -> bool {
    while let Some(at) = text.iter().position(|byte| *byte == wanted[0]) {
        text = &text[at..];
        if text.starts_with(wanted) {
            return true;
        }
        text = &text[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_name_across_chunks() {
        let name = b"private_key_providers.qat.";
        for at in [0, 7, CHUNK - 1, CHUNK - name.len(), 2 * CHUNK - 3] {
            let mut text = vec![b'p'; at];
            text.extend_from_slice(name);
            text.extend_from_slice(&[0; 5]);
            assert!(contains(&mut text.as_slice(), name).unwrap(), "{at}");
            text[at + 3] = b'_';
            assert!(!contains(&mut text.as_slice(), name).unwrap(), "{at}");
        }
    }

    #[test]
    fn says_when_a_program_cannot_be_read() {
        assert!(ProviderKind::Qat.is_in(Path::new("/nowhere/envoy")).is_err());
    }
}
