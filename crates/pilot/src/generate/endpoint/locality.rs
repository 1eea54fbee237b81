//! Load balancing by locality: which endpoints come first, and how the load is
//! shared out among places.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use names::label;
use proto::istio::networking::v1alpha3::locality_load_balancer_setting::Distribute;
use proto::istio::networking::v1alpha3::{LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting};

use super::group::{Group, close_gaps};
use crate::generate::cluster::policy::Policy;
use crate::scope::Scope;
use crate::snapshot::Service;
use crate::snapshot::endpoint::Locality;
use crate::snapshot::service::TrafficDistribution;

/// Labels that `PreferSameZone` compares, the most important first.
const SAME_ZONE: &[&str] = &[label::NETWORK, label::REGION, label::ZONE];
/// Labels that `PreferSameNode` compares.
const SAME_NODE: &[&str] = &[label::NETWORK, label::REGION, label::ZONE, label::SUB_ZONE, label::HOSTNAME];

/// The setting that holds for a cluster: the DestinationRule's, else the
/// service's own, else the mesh's.
#[derive(Clone, Copy, Debug)]
pub(in crate::generate) enum Setting<'a> {
    /// By locality. `None`: as the mesh does when nobody says anything.
    Locality(Option<&'a LocalityLoadBalancerSetting>),
    /// What the service prefers; it does not need outlier detection.
    Preferred(TrafficDistribution),
    /// Envoy's own routing by zones.
    ZoneAware(&'a ZoneAwareLoadBalancerSetting),
}

impl<'a> Setting<'a> {
    /// The setting for a cluster; `None` when it is switched off.
    pub(in crate::generate) fn of(scope: Scope<'a>, service: &Service, blocks: &Policy<'a>) -> Option<Self> {
        let enabled = |setting: &'a LocalityLoadBalancerSetting| {
            let is_on = setting.enabled.as_ref().is_none_or(|enabled| enabled.value);
            is_on.then_some(Self::Locality(Some(setting)))
        };
        if let Some(balancer) = blocks.load_balancer {
            if let Some(setting) = &balancer.zone_aware_lb_setting {
                return Some(Self::ZoneAware(setting));
            }
            if let Some(setting) = &balancer.locality_lb_setting {
                return enabled(setting);
            }
        }
        if service.traffic_distribution != TrafficDistribution::Any {
            return Some(Self::Preferred(service.traffic_distribution));
        }
        let mesh = &scope.snapshot.mesh;
        if let Some(setting) = &mesh.zone_aware_lb_setting {
            return Some(Self::ZoneAware(setting));
        }
        match &mesh.locality_lb_setting {
            Some(setting) => enabled(setting),
            None => Some(Self::Locality(None)),
        }
    }

    /// Sets priorities and weights as a proxy at `own` sees them. Without outlier
    /// detection Envoy never leaves the first priority, so there is only one.
    pub(super) fn apply(
        self,
        groups: &mut Vec<Group<'_>>,
        own: &Locality,
        has_outlier_detection: bool,
        labels: impl FnOnce() -> BTreeMap<String, String>,
    ) {
        match self {
            Self::Preferred(TrafficDistribution::SameNode) => by_labels(groups, &labels(), SAME_NODE),
            Self::Preferred(_) => by_labels(groups, &labels(), SAME_ZONE),
            Self::Locality(Some(setting)) if !setting.distribute.is_empty() => {
                distribute(groups, own, &setting.distribute);
            }
            Self::Locality(_) if !has_outlier_detection => {}
            Self::Locality(setting) => {
                let priority = setting.map_or(&[][..], |setting| &setting.failover_priority);
                let failover: Vec<_> = setting.into_iter().flat_map(|setting| &setting.failover).collect();
                if !priority.is_empty() {
                    by_labels(groups, &labels(), priority);
                }
                if priority.is_empty() || !failover.is_empty() {
                    let target = failover.iter().find(|failover| failover.from == own.region);
                    rank(groups, 5, |place| {
                        nearness(own, place, target.map(|failover| failover.to.as_str()))
                    });
                }
            }
            Self::ZoneAware(setting) if setting.enabled.as_ref().is_some_and(|enabled| !enabled.value) => {}
            Self::ZoneAware(setting) => {
                if !setting.failover_priority.is_empty() {
                    by_labels(groups, &labels(), &setting.failover_priority);
                }
                let target = setting.failover.iter().find(|failover| failover.from == own.region);
                // All of the region share a priority: Envoy itself weighs its zones.
                rank(groups, 3, |place| match target {
                    _ if place.region == own.region => 0,
                    Some(target) if place.region == target.to => 1,
                    _ => 2,
                });
            }
        }
    }
}

/// How far a place is: 0 the same, 3 another region; with a region to fail over
/// to, 4 for all others.
fn nearness(own: &Locality, place: &Locality, target: Option<&str>) -> u32 {
    if place.region != own.region {
        return if target.is_some_and(|target| target != place.region) { 4 } else { 3 };
    }
    if place.zone != own.zone {
        return 2;
    }
    u32::from(place.sub_zone != own.sub_zone)
}

/// Ranks the groups of each priority among each other; there are `ranks` ranks.
fn rank(groups: &mut [Group<'_>], ranks: u32, of: impl Fn(&Locality) -> u32) {
    for group in groups.iter_mut() {
        group.priority = group.priority.saturating_mul(ranks).saturating_add(of(group.locality));
    }
    close_gaps(groups);
}

/// Ranks endpoints by the labels that they share with the proxy: the more of the
/// first ones are equal, the earlier. `KEY=VALUE` compares with that value instead
/// of the proxy's. A network that differs comes after all others, each again in
/// their order.
fn by_labels<T: AsRef<str>>(groups: &mut Vec<Group<'_>>, own: &BTreeMap<String, String>, keys: &[T]) {
    if own.is_empty() || groups.is_empty() {
        return;
    }
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let mut parsed: Vec<(&str, &str)> = Vec::with_capacity(keys.len());
    for key in keys {
        let mut parts = key.as_ref().split('=');
        let name = parts.next().unwrap_or_default();
        let value = match (parts.next(), parts.next()) {
            (Some(value), None) => value,
            _ => own.get(name).map_or("", String::as_str),
        };
        parsed.push((name, value));
    }
    let has_network = keys.first().is_some_and(|key| key.as_ref() == label::NETWORK);
    let mut made: Vec<Group<'_>> = Vec::with_capacity(groups.len());
    for group in groups.drain(..) {
        let mut parts: BTreeMap<u32, Group<'_>> = BTreeMap::new();
        for member in &group.members {
            let mut priority = 0;
            for (index, (name, value)) in (0_u32..).zip(&parsed) {
                if member.label(name) == *value {
                    continue;
                }
                if index == 0 && has_network {
                    priority = count;
                    continue;
                }
                priority += count - index;
                break;
            }
            let part =
                parts.entry(priority).or_insert_with(|| Group { priority, ..Group::new(group.locality) });
            part.members.push(*member);
        }
        made.extend(parts.into_values());
    }
    made.iter_mut().for_each(Group::sum_up);
    close_gaps(&mut made);
    *groups = made;
}

/// Shares the load out among places as the first rule for the proxy's place says;
/// places that it does not name get nothing.
fn distribute(groups: &mut [Group<'_>], own: &Locality, rules: &[Distribute]) {
    let Some(rule) = rules.iter().find(|rule| covers(&rule.from, own)) else { return };
    let mut is_named = vec![false; groups.len()];
    let mut targets: Vec<(&String, &u32)> = rule.to.iter().collect();
    // The more exact one comes first, should two mean the same place.
    targets.sort_by_key(|(place, _)| (place.contains('*'), Reverse(place.len()), *place));
    for (place, share) in targets {
        let mut fits: Vec<&mut Group<'_>> = Vec::new();
        for (group, is_named) in groups.iter_mut().zip(&mut is_named) {
            if !*is_named && covers(place, group.locality) {
                *is_named = true;
                fits.push(group);
            }
        }
        let weight_of = |group: &Group<'_>| u64::from(group.weight.unwrap_or(1));
        let total: u64 = fits.iter().map(|group| weight_of(group)).sum();
        for group in fits {
            let weight = (weight_of(group) * u64::from(*share)).div_ceil(total.max(1));
            if weight > 0 {
                group.weight = Some(u32::try_from(weight).unwrap_or(u32::MAX));
            }
        }
    }
    for (group, is_named) in groups.iter_mut().zip(is_named) {
        if !is_named {
            group.members.clear();
        }
    }
}

/// Whether a locality as written, `REGION/ZONE/SUBZONE` with `*` and parts left
/// out, means a place.
fn covers(text: &str, place: &Locality) -> bool {
    let rule = Locality::parse(text, '/');
    let part = |rule: &str, own: &str| rule == "*" || rule.is_empty() || rule == own;
    (rule.region == "*" || rule.region == place.region)
        && part(&rule.zone, &place.zone)
        && part(&rule.sub_zone, &place.sub_zone)
}
