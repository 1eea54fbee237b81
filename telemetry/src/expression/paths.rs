//! What an expression speaks of: `request.headers['x']` is the path request, headers, x.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

/// Names from the outermost.
pub(super) type Path = Vec<String>;

/// An expression that is nothing but one of these.
pub(super) enum Whole {
    /// A text.
    Text(String),
    /// An attribute.
    Path(Path),
}

/// Whether an expression needs no interpreter.
pub(super) fn whole(expression: &Expr) -> Option<Whole> {
    if let Expr::Literal(LiteralValue::String(text)) = expression {
        return Some(Whole::Text(text.inner().to_owned()));
    }
    match expression {
        Expr::Select(select) if select.test => None,
        other => path(other).map(Whole::Path),
    }
}

/// All paths in an expression, the longest of each.
pub(super) fn all(expression: &Expr) -> Vec<Path> {
    let mut found = Vec::new();
    collect(expression, &mut found);
    found.sort();
    found.dedup();
    found
}

/// The path that an expression is, where it is one.
fn path(expression: &Expr) -> Option<Path> {
    match expression {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(select) => {
            let mut path = path(&select.operand.expr)?;
            path.push(select.field.clone());
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [map, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                let mut path = path(&map.expr)?;
                path.push(key.inner().to_owned());
                Some(path)
            }
            _ => None,
        },
        _ => None,
    }
}

/// How many expressions are within each other.
pub(super) fn depth(expression: &Expr) -> usize {
    let mut deepest = 0;
    parts(expression, &mut |part| deepest = deepest.max(depth(part)));
    deepest + 1
}

fn collect(expression: &Expr, found: &mut Vec<Path>) {
    if let Some(path) = path(expression) {
        found.push(path);
        return;
    }
    parts(expression, &mut |part| collect(part, found));
}

/// Calls `each` with the expressions that one is made of.
fn parts(expression: &Expr, each: &mut dyn FnMut(&Expr)) {
    match expression {
        Expr::Select(select) => each(&select.operand.expr),
        Expr::Call(call) => {
            for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                each(&part.expr);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|part| each(&part.expr)),
        Expr::Map(map) => map.entries.iter().for_each(|part| entry(&part.expr, each)),
        Expr::Struct(fields) => fields.entries.iter().for_each(|part| entry(&part.expr, each)),
        Expr::Comprehension(all) => {
            for part in [&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result] {
                each(&part.expr);
            }
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn entry(entry: &EntryExpr, each: &mut dyn FnMut(&Expr)) {
    match entry {
        EntryExpr::StructField(field) => each(&field.value.expr),
        EntryExpr::MapEntry(entry) => {
            each(&entry.key.expr);
            each(&entry.value.expr);
        }
    }
}
