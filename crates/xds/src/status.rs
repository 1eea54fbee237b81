//! What one client has been sent and has accepted, type by type.

use std::time::SystemTime;

/// State of one subscription, as `/debug/syncz` and `proxy-status` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Nonce of the last response.
    pub sent_nonce: Option<String>,
    /// Nonce of the last response that the client accepted.
    pub acked_nonce: Option<String>,
    /// Nonce of the last response that the client answered at all.
    pub answered_nonce: Option<String>,
    /// When the last response was sent.
    pub sent_at: Option<SystemTime>,
    /// When the client last accepted a response.
    pub acked_at: Option<SystemTime>,
    /// What the client said when it refused the last response.
    pub last_error: Option<String>,
}

/// The word that people read in `proxy-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The client never asked, or nothing was sent.
    NotSent,
    /// The last response was accepted.
    Synced,
    /// The last response is not answered yet.
    Stale,
    /// The last response was refused.
    Error,
}

impl TypeStatus {
    /// Whether a response waits for its answer.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.sent_nonce.is_some() && self.sent_nonce != self.answered_nonce
    }

    /// The word for it.
    #[must_use]
    pub fn state(&self) -> SyncState {
        if self.sent_nonce.is_none() {
            SyncState::NotSent
        } else if self.last_error.is_some() {
            SyncState::Error
        } else if self.sent_nonce == self.acked_nonce {
            SyncState::Synced
        } else {
            SyncState::Stale
        }
    }
}

impl SyncState {
    /// As `proxy-status` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "NOT SENT",
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}
