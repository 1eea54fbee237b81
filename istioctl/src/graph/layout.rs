//! Where nodes are drawn: in layers from clients to servers, and in each layer near
//! those that they talk to.

use super::Graph;

/// Size of a node.
pub(super) const WIDTH: f64 = 210.0;
pub(super) const HEIGHT: f64 = 52.0;
/// Blanks between layers, in which traffic is labeled.
const ACROSS: f64 = 170.0;
/// Blanks between nodes.
pub(super) const DOWN: f64 = 26.0;
/// Blanks between the columns of one layer.
const COLUMN: f64 = 40.0;
/// Around all.
const MARGIN: f64 = 24.0;
/// Fewest nodes of a layer that has more than one column.
const TALL: usize = 18;
const SWEEPS: usize = 6;

/// Where everything is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// The left upper corner of each node.
    pub(super) at: Vec<(f64, f64)>,
    /// The layer of each node.
    pub(super) layer: Vec<usize>,
    /// The column of each node that talks to others.
    pub(super) column: Vec<usize>,
    /// All columns of all layers, from left to right.
    pub(super) columns: Vec<Column>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Nodes that stand above each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) left: f64,
    /// Heights at which no node is: above each, and below all.
    pub(super) gaps: Vec<f64>,
}

impl Column {
    /// The gap that is nearest to a height.
    pub(super) fn nearest_gap(&self, y: f64) -> usize {
        let below = self.gaps.partition_point(|gap| *gap < y).min(self.gaps.len() - 1);
        let above = below.saturating_sub(1);
        if y - self.gaps[above] < self.gaps[below] - y { above } else { below }
    }
}

impl Layout {
    pub(super) fn of(graph: &Graph) -> Self {
        let places = graph.places();
        let count = graph.nodes.len();
        let mut next = vec![Vec::new(); count];
        for edge in &graph.edges {
            if let (Some(&from), Some(&to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str()))
                && from != to
                && !next[from].contains(&to)
            {
                next[from].push(to);
            }
        }
        let layer = layers(&next);
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layer.iter().max().map_or(0, |most| most + 1)];
        let mut alone = Vec::new();
        let mut is_called = vec![false; count];
        next.iter().flatten().for_each(|&to| is_called[to] = true);
        for node in 0..count {
            if next[node].is_empty() && !is_called[node] { &mut alone } else { &mut rows[layer[node]] }
                .push(node);
        }
        rows.retain(|row| !row.is_empty());
        order(&mut rows, &next);
        place(count, &rows, &alone, layer)
    }
}

/// The layer of each node: one more than that of who calls it, where calls do not go
/// round in a circle.
fn layers(next: &[Vec<usize>]) -> Vec<usize> {
    let mut back = vec![Vec::new(); next.len()];
    for (from, all) in next.iter().enumerate() {
        all.iter().for_each(|&to| back[to].push(from));
    }
    let order = finished(next, 0..next.len());
    // Who can be reached both ways is of one circle (Kosaraju).
    let mut circle = vec![usize::MAX; next.len()];
    for &root in order.iter().rev() {
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            if circle[node] == usize::MAX {
                circle[node] = root;
                stack.extend(&back[node]);
            }
        }
    }
    // Inside of a circle a call goes on that leads away from where calls come in.
    let depth = depths(next, &back);
    let goes_on =
        |from: usize, to: usize| circle[from] != circle[to] || (depth[from], from) < (depth[to], to);
    let forward: Vec<Vec<usize>> = next
        .iter()
        .enumerate()
        .map(|(from, all)| all.iter().copied().filter(|&to| goes_on(from, to)).collect())
        .collect();
    let mut layer = vec![0; next.len()];
    for &node in finished(&forward, 0..next.len()).iter().rev() {
        for &to in &forward[node] {
            layer[to] = layer[to].max(layer[node] + 1);
        }
    }
    layer
}

/// All nodes, each after those that it leads to, but for circles.
fn finished(next: &[Vec<usize>], roots: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut is_seen, mut order) = (vec![false; next.len()], Vec::with_capacity(next.len()));
    for root in roots {
        if std::mem::replace(&mut is_seen[root], true) {
            continue;
        }
        // A stack of its own: a chain of calls may be long.
        let mut stack = vec![(root, 0)];
        while let Some((node, at)) = stack.last_mut() {
            let node = *node;
            let Some(&to) = next[node].get(*at) else {
                order.push(node);
                stack.pop();
                continue;
            };
            *at += 1;
            if !std::mem::replace(&mut is_seen[to], true) {
                stack.push((to, 0));
            }
        }
    }
    order
}

/// How many calls each node is away from one that nobody calls; of a circle that
/// nobody calls, from its first.
fn depths(next: &[Vec<usize>], back: &[Vec<usize>]) -> Vec<usize> {
    let mut depth = vec![usize::MAX; next.len()];
    let sources = (0..next.len()).filter(|&node| back[node].is_empty());
    let mut level: Vec<usize> = sources.collect();
    for first in 0..=next.len() {
        level.iter().for_each(|&node| depth[node] = 0);
        let mut away = 0;
        while !level.is_empty() {
            away += 1;
            let mut following = Vec::new();
            for to in level.drain(..).flat_map(|node| next[node].iter().copied()) {
                if depth[to] == usize::MAX {
                    depth[to] = away;
                    following.push(to);
                }
            }
            level = following;
        }
        if first < next.len() && depth[first] == usize::MAX {
            level.push(first);
        }
    }
    depth
}

/// Puts each node near the middle of its neighbors.
fn order(rows: &mut [Vec<usize>], next: &[Vec<usize>]) {
    let mut neighbors = vec![Vec::new(); next.len()];
    for (from, all) in next.iter().enumerate() {
        for &to in all {
            neighbors[from].push(to);
            neighbors[to].push(from);
        }
    }
    let mut height = vec![0.0; next.len()];
    let settle = |row: &[usize], height: &mut [f64]| {
        for (index, &node) in row.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
            let part = (index as f64 + 0.5) / row.len() as f64;
            height[node] = part;
        }
    };
    rows.iter().for_each(|row| settle(row, &mut height));
    for sweep in 0..SWEEPS {
        let count = rows.len();
        for step in 0..count {
            let row = &mut rows[if sweep % 2 == 0 { step } else { count - 1 - step }];
            let mut keyed: Vec<(f64, usize)> = row
                .iter()
                .map(|&node| {
                    let near = &neighbors[node];
                    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
                    let middle = near.iter().map(|&one| height[one]).sum::<f64>() / near.len().max(1) as f64;
                    (middle, node)
                })
                .collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            *row = keyed.into_iter().map(|(_, node)| node).collect();
            settle(row, &mut height);
        }
    }
}

fn place(count: usize, rows: &[Vec<usize>], alone: &[usize], layer: Vec<usize>) -> Layout {
    let widest = rows.iter().map(Vec::len).max().unwrap_or(0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small"
    )]
    let tall = TALL.max((widest as f64).sqrt() as usize * 2);
    let mut at = vec![(0.0, 0.0); count];
    let (mut column_of, mut all_columns) = (vec![0; count], Vec::new());
    let (mut left, mut bottom) = (MARGIN, MARGIN);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
    let step = |index: usize| index as f64;
    let full = step(rows.iter().map(|row| row.len().min(tall)).max().unwrap_or(0)) * (HEIGHT + DOWN);
    for row in rows {
        let columns = row.len().div_ceil(tall).max(1);
        let each = row.len().div_ceil(columns);
        for (column, nodes) in row.chunks(each.max(1)).enumerate() {
            let top = MARGIN + (full - step(nodes.len()) * (HEIGHT + DOWN)) / 2.0;
            let left = left + step(column) * (WIDTH + COLUMN);
            for (index, &node) in nodes.iter().enumerate() {
                at[node] = (left, top + step(index) * (HEIGHT + DOWN));
                column_of[node] = all_columns.len();
            }
            let gaps = (0..=nodes.len()).map(|index| top - DOWN / 2.0 + step(index) * (HEIGHT + DOWN));
            all_columns.push(Column { left, gaps: gaps.collect() });
        }
        left += step(columns) * (WIDTH + COLUMN) - COLUMN + ACROSS;
        bottom = bottom.max(MARGIN + full);
    }
    let mut width = (left - ACROSS).max(MARGIN + WIDTH);
    // Who talks to nobody stands below, in as many columns as there is room for.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let columns = (((width - MARGIN) / (WIDTH + COLUMN)) as usize).max(4).min(alone.len().max(1));
    for (index, &node) in alone.iter().enumerate() {
        let (x, y) = (step(index % columns), step(index / columns));
        at[node] = (MARGIN + x * (WIDTH + COLUMN), bottom + DOWN + y * (HEIGHT + DOWN));
        width = width.max(at[node].0 + WIDTH);
    }
    let height = at.iter().map(|(_, y)| y + HEIGHT).fold(MARGIN + HEIGHT, f64::max);
    Layout {
        at,
        layer,
        column: column_of,
        columns: all_columns,
        width: width + MARGIN,
        height: height + MARGIN,
    }
}
