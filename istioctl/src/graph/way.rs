//! The lines of edges: they bend between columns of nodes, and pass a column between
//! two of its nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::layout::{DOWN, HEIGHT, Layout, WIDTH};

/// Distance of lines that pass between the same nodes, where there is room for it.
const TRACK: f64 = 6.0;
/// What is free of lines next to a node.
const FREE: f64 = 4.0;
/// How far a line turns that comes back to its column.
const TURN: f64 = 46.0;

type Point = (f64, f64);

/// The line of an edge, and where it is labeled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Way {
    /// Curves of Bezier; a straight line leads from the end of one to the next.
    pub(super) curves: Vec<[Point; 4]>,
    pub(super) label: Point,
}

impl Way {
    /// As SVG has it.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for (index, [start, one, other, end]) in self.curves.iter().enumerate() {
            let lead = if index == 0 { 'M' } else { 'L' };
            // Writing into text cannot fail.
            let _ = write!(path, "{lead}{:.1} {:.1}C{:.1} {:.1} ", start.0, start.1, one.0, one.1);
            let _ = write!(path, "{:.1} {:.1} {:.1} {:.1}", other.0, other.1, end.0, end.1);
        }
        path
    }

    /// Of an edge that stays in its column.
    fn around(layout: &Layout, from: usize, to: usize) -> Self {
        let (x, start) = (layout.at[from].0 + WIDTH, layout.at[from].1 + 12.0);
        if from == to {
            let curve = [(x, start), (x + TURN, start - 34.0), (x + TURN, start + 48.0), (x, start + 28.0)];
            return Self { curves: vec![curve], label: (x + 40.0, start + 4.0) };
        }
        let end = layout.at[to].1 + HEIGHT - 12.0;
        let curve = [(x, start), (x + TURN, start), (x + TURN, end), (x, end)];
        Self { label: on(&curve, 0.5), curves: vec![curve] }
    }

    /// Of an edge that passes columns, each at a height.
    fn across(layout: &Layout, from: usize, to: usize, passed: &[(usize, f64)], part: f64) -> Self {
        let is_forward = layout.column[from] < layout.column[to];
        let [mut start, end] = ends(layout, from, to);
        let mut curves = Vec::with_capacity(passed.len() + 1);
        for &(column, y) in passed {
            let (left, right) = (layout.columns[column].left, layout.columns[column].left + WIDTH);
            let (into, out) = if is_forward { (left, right) } else { (right, left) };
            curves.push(bent(start, (into, y)));
            start = (out, y);
        }
        curves.push(bent(start, end));
        // Between layers there is more room for a label than inside of one.
        let width = |curve: &[Point; 4]| (curve[3].0 - curve[0].0).abs();
        let widest = curves.iter().map(width).fold(0.0, f64::max);
        let wide: Vec<_> = curves.iter().filter(|curve| width(curve) > widest - 1.0).collect();
        let label = wide.get(wide.len() / 2).map_or(start, |curve| on(curve, part));
        Self { curves, label }
    }
}

/// The lines of all edges, which are named by the indexes of their nodes.
pub(super) fn all(layout: &Layout, edges: &[(usize, usize)]) -> Vec<Way> {
    // By column and gap, the edges that pass there, each with the height that suits it.
    let mut passing: BTreeMap<(usize, usize), Vec<(f64, usize)>> = BTreeMap::new();
    for (index, &(from, to)) in edges.iter().enumerate() {
        let [start, end] = ends(layout, from, to);
        let mut y = start.1;
        let between: Vec<usize> = between(layout.column[from], layout.column[to]);
        let mut left = between.len() + 1;
        for column in between {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
            let wanted = y + (end.1 - y) / left as f64;
            let gap = layout.columns[column].nearest_gap(wanted);
            passing.entry((column, gap)).or_default().push((wanted, index));
            y = layout.columns[column].gaps[gap];
            left -= 1;
        }
    }
    let mut passed: Vec<Vec<(usize, f64)>> = vec![Vec::new(); edges.len()];
    for ((column, gap), mut lines) in passing {
        lines.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        let count = lines.len() as f64;
        let step = TRACK.min((DOWN - 2.0 * FREE) / count);
        let mut y = layout.columns[column].gaps[gap] - step * (count - 1.0) / 2.0;
        for (_, index) in lines {
            passed[index].push((column, y));
            y += step;
        }
    }
    let ways = edges.iter().zip(&mut passed).enumerate().map(|(index, (&(from, to), passed))| {
        let (first, last) = (layout.column[from], layout.column[to]);
        if first == last {
            return Way::around(layout, from, to);
        }
        if first > last {
            passed.reverse();
        }
        // Where many lines meet, their labels stand at different places.
        #[expect(clippy::cast_precision_loss, reason = "below 3")]
        let part = 0.42 + 0.08 * (index % 3) as f64;
        Way::across(layout, from, to, passed, part)
    });
    ways.collect()
}

/// Where the line of an edge begins and ends: who calls back does so lower.
fn ends(layout: &Layout, from: usize, to: usize) -> [Point; 2] {
    let ((ax, ay), (bx, by)) = (layout.at[from], layout.at[to]);
    if layout.column[from] <= layout.column[to] {
        [(ax + WIDTH, ay + HEIGHT * 0.5), (bx, by + HEIGHT * 0.5)]
    } else {
        [(ax, ay + HEIGHT * 0.75), (bx + WIDTH, by + HEIGHT * 0.75)]
    }
}

/// The columns between two, in the order of the way.
fn between(from: usize, to: usize) -> Vec<usize> {
    if from < to { (from + 1..to).collect() } else { (to + 1..from).rev().collect() }
}

/// A curve that begins and ends level.
fn bent(start: Point, end: Point) -> [Point; 4] {
    let middle = f64::midpoint(start.0, end.0);
    [start, (middle, start.1), (middle, end.1), end]
}

/// A point of a curve, at a part of it from 0 to 1.
pub(super) fn on(curve: &[Point; 4], at: f64) -> Point {
    let rest = 1.0 - at;
    let weights = [rest.powi(3), 3.0 * rest * rest * at, 3.0 * rest * at * at, at.powi(3)];
    let sum =
        |of: fn(&Point) -> f64| weights.iter().zip(curve).map(|(weight, point)| weight * of(point)).sum();
    (sum(|point| point.0), sum(|point| point.1))
}
