//! Endpoints of one locality and priority, before they are written down.

use std::collections::BTreeMap;

use names::label;

use crate::settings::SessionLabels;
use crate::snapshot::Endpoint;
use crate::snapshot::endpoint::{Health, Locality};
use crate::snapshot::network::Gateway;

/// What one member of a group leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The endpoint itself.
    Direct(&'a Endpoint),
    /// The gateway of its network.
    Gateway(&'a Gateway),
}

/// One endpoint as a proxy uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) target: Target<'a>,
    pub(super) health: Health,
    pub(super) weight: u32,
    pub(super) accepts_mtls: bool,
}

impl<'a> Member<'a> {
    pub(super) fn direct(endpoint: &'a Endpoint, health: Health, accepts_mtls: bool) -> Self {
        Self { target: Target::Direct(endpoint), health, weight: endpoint.weight, accepts_mtls }
    }

    pub(super) fn has_address(&self) -> bool {
        match self.target {
            Target::Direct(endpoint) => !endpoint.address.is_empty(),
            Target::Gateway(_) => true,
        }
    }

    /// A label of the workload, empty when it has none; of a gateway only where it is.
    pub(super) fn label(&self, key: &str) -> &'a str {
        match self.target {
            Target::Direct(endpoint) => endpoint.labels.get(key).map_or("", String::as_str),
            Target::Gateway(gateway) if key == label::NETWORK => &gateway.network,
            Target::Gateway(gateway) if key == label::CLUSTER => &gateway.cluster,
            Target::Gateway(_) => "",
        }
    }
}

/// Members of one locality with one priority.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) locality: &'a Locality,
    /// 0 is the first.
    pub(super) priority: u32,
    /// Its share of the load among groups of its priority; `None` when it has no member.
    pub(super) weight: Option<u32>,
    pub(super) members: Vec<Member<'a>>,
}

impl<'a> Group<'a> {
    pub(super) fn new(locality: &'a Locality) -> Self {
        Self { locality, priority: 0, weight: None, members: Vec::new() }
    }

    /// Sets the weight to the sum of its members'.
    pub(super) fn sum_up(&mut self) {
        let sum = self.members.iter().fold(0_u32, |sum, member| sum.saturating_add(member.weight));
        self.weight = (!self.members.is_empty()).then_some(sum);
    }

    /// Keeps some members only.
    pub(super) fn retain(&mut self, keep: impl Fn(&Member<'a>) -> bool) {
        let before = self.members.len();
        self.members.retain(keep);
        if self.members.len() != before {
            self.sum_up();
        }
    }
}

/// Gives the groups priorities from 0 on without gaps, in the order that they have.
pub(super) fn close_gaps(groups: &mut [Group<'_>]) {
    let mut ranks: BTreeMap<u32, u32> = groups.iter().map(|group| (group.priority, 0)).collect();
    for (rank, (_, new)) in (0..).zip(ranks.iter_mut()) {
        *new = rank;
    }
    for group in groups {
        group.priority = ranks.get(&group.priority).copied().unwrap_or(group.priority);
    }
}

/// The state of an endpoint; a label on its workload says that it ends.
pub(super) fn health(labels: &SessionLabels, endpoint: &Endpoint) -> Health {
    let is_draining = labels.is_draining(&endpoint.labels);
    let is_over = endpoint.health == Health::Terminating;
    if is_draining && !is_over { Health::Draining } else { endpoint.health }
}
