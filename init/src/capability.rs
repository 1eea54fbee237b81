//! What the kernel must allow this process, and passing it on to the programs
//! that it runs.

use caps::{CapSet, Capability};

/// A capability is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not effective.
    #[error(
        "this process lacks the capability {0}, which changing packet filter rules takes; in the pod's spec: \
         securityContext.capabilities.add: [{short}], or run it as root in a container that has it", short = short(*.0)
    )]
    Missing(Capability),
    /// The kernel does not tell.
    #[error("reading the capabilities of this process: {0}")]
    Unknown(#[from] caps::errors::CapsError),
}

/// The name that a pod's spec uses.
fn short(capability: Capability) -> String {
    capability.to_string().trim_start_matches("CAP_").to_owned()
}

/// Checks that rules may be changed.
///
/// # Errors
/// `NET_ADMIN` is not effective.
pub fn check() -> Result<(), Error> {
    require(Capability::CAP_NET_ADMIN)
}

/// Checks that legacy iptables may be used: it talks over a raw socket.
///
/// # Errors
/// `NET_RAW` is not effective.
pub fn check_legacy() -> Result<(), Error> {
    require(Capability::CAP_NET_RAW)
}

fn require(capability: Capability) -> Result<(), Error> {
    if caps::has_cap(None, CapSet::Effective, capability)? { Ok(()) } else { Err(Error::Missing(capability)) }
}

/// Lets programs that are run have what this one has: without it they lose the
/// capabilities of a file (`setcap`) when the user is not root.
///
/// # Errors
/// The kernel refuses, which leaves things as they were.
pub fn pass_on() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for capability in [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW] {
        if caps::has_cap(None, CapSet::Permitted, capability)? {
            caps::raise(None, CapSet::Inheritable, capability)?;
            caps::raise(None, CapSet::Ambient, capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_write_into_the_pods_spec() {
        let told = Error::Missing(Capability::CAP_NET_ADMIN).to_string();
        assert!(told.contains("CAP_NET_ADMIN") && told.contains("add: [NET_ADMIN]"), "{told}");
    }
}
