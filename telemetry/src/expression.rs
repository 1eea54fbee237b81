//! Expressions that give a tag its value: CEL over Envoy's attributes, as users of
//! Istio's Telemetry write them.
//!
//! What an expression speaks of is found when it is compiled, so a request asks Envoy for
//! that alone. An expression that cannot be compiled or evaluated is `unknown`.

mod lookup;
mod paths;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::Key;
use cel::{Context, Env, Program, Value};

use crate::attributes::Attributes;
use crate::labels::UNKNOWN;
use crate::log;
pub use lookup::Sources;
use paths::Path;

/// What the language itself brings.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Longest expression, in bytes.
const LONGEST: usize = 4096;
/// Most brackets within each other. The parser needs stack for each, and what runs out
/// of stack takes Envoy with it: no code can catch that.
const DEEPEST: usize = 24;
/// Most operators, dots and brackets.
const MOST_OPERATORS: usize = 512;
/// Most calls within each other: evaluating needs stack for each, and runs where Envoy
/// handles requests.
const DEEPEST_CALL: usize = 40;
/// Stack for the parser. Memory is taken only as it is used.
const STACK: usize = 64 << 20;

/// One expression.
#[derive(Debug)]
pub struct Expression {
    text: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Always the same.
    Fixed(String),
    /// One attribute: the common case, which needs no interpreter.
    Plain(Path),
    /// Anything else, with what it speaks of.
    Program(Box<Program>, Vec<Path>),
}

impl Expression {
    /// Compiles. What is wrong is logged.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let compiled = check(text).and_then(|()| {
            let owned = text.to_owned();
            // The parser is somebody else's: it needs much stack, and could panic.
            let compile = move || {
                let program = Program::compile(&owned).map_err(|error| error.to_string())?;
                if paths::depth(&program.expression().expr) > DEEPEST_CALL {
                    return Err(format!("more than {DEEPEST_CALL} calls within each other"));
                }
                Ok(program)
            };
            let thread = std::thread::Builder::new().name("istio-telemetry".into()).stack_size(STACK);
            let thread = thread.spawn(compile).map_err(|error| error.to_string())?;
            thread.join().unwrap_or_else(|_| Err("the parser has given up".to_owned()))
        });
        let kind = match compiled {
            Ok(program) => match paths::whole(&program.expression().expr) {
                Some(paths::Whole::Text(text)) => Kind::Fixed(text),
                Some(paths::Whole::Path(path)) => Kind::Plain(path),
                None => {
                    let paths = paths::all(&program.expression().expr);
                    Kind::Program(Box::new(program), paths)
                }
            },
            Err(error) => {
                log::warn(&format!("the expression {text:?} is not usable, its value is {UNKNOWN}: {error}"));
                Kind::Fixed(UNKNOWN.to_owned())
            }
        };
        Self { text: text.to_owned(), kind }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for one request or connection.
    #[must_use]
    pub fn value<A: Attributes>(&self, sources: &Sources<'_, A>) -> String {
        let value = match &self.kind {
            Kind::Fixed(text) => return text.clone(),
            Kind::Plain(path) => sources.find(path),
            Kind::Program(program, paths) => run(program, paths, sources),
        };
        value.and_then(|value| print(&value)).unwrap_or_else(|| UNKNOWN.to_owned())
    }
}

/// Refuses what could need more stack than there is.
fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("more than {LONGEST} bytes"));
    }
    let (mut depth, mut deepest, mut operators, mut prefixes) = (0_usize, 0, 0, 0);
    // Brackets in texts count as well: an expression is short, and these are rare.
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            // One within the other, too.
            b'!' | b'?' => prefixes += 1,
            b'-' | b'+' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'&' | b'|' | b'.' | b':' | b',' => {}
            _ => continue,
        }
        deepest = deepest.max(depth);
        operators += 1;
    }
    // Signs follow one another without a bracket.
    prefixes += text.matches("--").count() + text.matches("- -").count();
    if deepest > DEEPEST || prefixes > DEEPEST {
        return Err(format!("more than {DEEPEST} parts within each other"));
    }
    if operators > MOST_OPERATORS {
        return Err(format!("more than {MOST_OPERATORS} operators"));
    }
    Ok(())
}

/// The values of all, in order.
#[must_use]
pub fn evaluate<A: Attributes>(all: &[Expression], sources: &Sources<'_, A>) -> Vec<String> {
    all.iter().map(|one| one.value(sources)).collect()
}

fn run<A: Attributes>(program: &Program, paths: &[Path], sources: &Sources<'_, A>) -> Option<Value> {
    let mut tree = Tree::default();
    for path in paths {
        tree.make(path);
        if let Some(value) = sources.find(path) {
            tree.put(path, value);
        }
    }
    let mut context = Context::with_env(Arc::clone(&ENV));
    for (name, node) in tree.children {
        context.add_variable_from_value(name, node.into_value());
    }
    program.execute(&context).ok()
}

/// Values by their paths, on the way to nested maps.
#[derive(Default)]
struct Tree {
    value: Option<Value>,
    children: HashMap<String, Self>,
}

impl Tree {
    /// Makes the maps above a path, so that `has()` finds none of it rather than no map.
    fn make(&mut self, path: &Path) {
        let mut node = self;
        for name in path.iter().take(path.len().saturating_sub(1).max(1)) {
            node = node.children.entry(name.clone()).or_default();
        }
    }

    fn put(&mut self, path: &Path, value: Value) {
        let mut node = self;
        for name in path {
            node = node.children.entry(name.clone()).or_default();
        }
        node.value = Some(value);
    }

    fn into_value(self) -> Value {
        if let Some(value) = self.value {
            return value;
        }
        let map = self.children.into_iter().map(|(name, node)| (Key::from(name), node.into_value()));
        Value::from(map.collect::<HashMap<_, _>>())
    }
}

/// A value as a label, as Envoy writes it.
fn print(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.as_ref().clone(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Null => "NULL".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
