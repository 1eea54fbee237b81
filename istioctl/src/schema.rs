//! Envoy's JSON to the canonical form of protobuf: names in camel case, fields
//! in the order of their declaration, maps sorted, values in their one form.
//! What a type does not know, and what is of a type that is not known here,
//! stays as it is: a dump may be of a newer Envoy.

mod supplement;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use time::format_description::well_known::Rfc3339;

use crate::json::{Number, Shape, Value};

/// The types of Envoy's and Istio's messages, with what is needed of them looked up once.
#[derive(Debug, Default)]
pub struct Schema {
    plans: RefCell<HashMap<String, Rc<Plan>>>,
}

/// The fields of a type.
#[derive(Debug)]
struct Plan {
    /// In the order of their declaration.
    fields: Vec<FieldDescriptor>,
    /// Both names of each.
    index: HashMap<String, usize>,
}

type Fields<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// All types.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = proto::reflect::pool().clone();
    supplement::add(&mut pool);
    pool
});

/// Field that names the type of a packed message.
pub const TYPE: &str = "@type";

impl Schema {
    /// The canonical form of a message of a type, by its full name. A field `@type` is left out.
    #[must_use]
    pub fn canonical<'a>(&self, name: &str, mut value: Value<'a>) -> Value<'a> {
        if let Value::Object(_, fields) = &mut value {
            fields.retain(|(name, _)| name != TYPE);
        }
        match POOL.get_message_by_name(name) {
            Some(descriptor) => self.message(&descriptor, value),
            None => value,
        }
    }

    fn plan(&self, descriptor: &MessageDescriptor) -> Rc<Plan> {
        if let Some(plan) = self.plans.borrow().get(descriptor.full_name()) {
            return Rc::clone(plan);
        }
        let declared = descriptor.descriptor_proto().field.iter();
        let fields: Vec<FieldDescriptor> =
            declared.filter_map(|field| descriptor.get_field_by_name(field.name())).collect();
        let names = fields.iter().enumerate();
        let index = names
            .flat_map(|(at, field)| [(field.json_name().to_owned(), at), (field.name().to_owned(), at)])
            .collect();
        let plan = Rc::new(Plan { fields, index });
        self.plans.borrow_mut().insert(descriptor.full_name().to_owned(), Rc::clone(&plan));
        plan
    }

    fn message<'a>(&self, descriptor: &MessageDescriptor, value: Value<'a>) -> Value<'a> {
        match descriptor.full_name() {
            "google.protobuf.Any" => return self.any(value),
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
                return free(value);
            }
            "google.protobuf.Duration" => return duration(value),
            "google.protobuf.Timestamp" => return timestamp(value),
            name if is_wrapper(name) => {
                return match descriptor.get_field(1) {
                    Some(field) => self.scalar(&field.kind(), value),
                    None => value,
                };
            }
            _ => {}
        }
        let Value::Object(_, fields) = value else { return value };
        let plan = self.plan(descriptor);
        let mut known: Vec<Option<Value<'a>>> = Vec::new();
        known.resize_with(plan.fields.len(), || None);
        let mut unknown = Vec::new();
        for (name, value) in fields {
            let Some(at) = plan.index.get(name.as_ref()) else {
                unknown.push((name, value));
                continue;
            };
            known[*at] = self.field(&plan.fields[*at], value);
        }
        let known = plan.fields.iter().zip(known);
        let mut fields: Fields<'a> = known
            .filter_map(|(field, value)| Some((Cow::Owned(field.json_name().to_owned()), value?)))
            .collect();
        fields.append(&mut unknown);
        Value::Object(Shape::Message, fields)
    }

    /// A field's value; none for what is the same as no field.
    fn field<'a>(&self, field: &FieldDescriptor, value: Value<'a>) -> Option<Value<'a>> {
        let kind = field.kind();
        match value {
            Value::Null if !is_value(&kind) => None,
            Value::Object(_, entries) if field.is_map() => {
                let entry = field.kind();
                let entry = entry.as_message()?;
                let kind = entry.map_entry_value_field().kind();
                let entries = entries.into_iter().map(|(name, value)| (name, self.scalar(&kind, value)));
                let mut entries: Fields<'a> = entries.collect();
                if matches!(entry.map_entry_key_field().kind(), Kind::String | Kind::Bool) {
                    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                } else {
                    entries.sort_by_key(|(name, _)| name.parse::<i128>().unwrap_or_default());
                }
                (!entries.is_empty()).then_some(Value::Object(Shape::Field, entries))
            }
            Value::List(_, items) if field.is_list() => {
                let items: Vec<_> = items.into_iter().map(|item| self.scalar(&kind, item)).collect();
                (!items.is_empty()).then_some(Value::List(Shape::Field, items))
            }
            value => {
                let value = self.scalar(&kind, value);
                (field.supports_presence() || !is_default(&kind, &value)).then_some(value)
            }
        }
    }

    fn scalar<'a>(&self, kind: &Kind, value: Value<'a>) -> Value<'a> {
        match (kind, value) {
            (Kind::Message(descriptor), value) => self.message(descriptor, value),
            (Kind::Enum(kind), _) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
            (Kind::Enum(kind), Value::Number(number)) =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "what is no integer is no value of it")]
                match kind.get_value(number.as_f64() as i32) {
                    Some(named) => Value::String(named.name().to_owned().into()),
                    None => Value::Number(number),
                }
            }
            (
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64,
                Value::Number(number),
            ) => Value::String(crate::render::json::number(number).into()),
            (
                Kind::Int32
                | Kind::Sint32
                | Kind::Sfixed32
                | Kind::Uint32
                | Kind::Fixed32
                | Kind::Float
                | Kind::Double,
                Value::String(text),
            ) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => self.scalar(kind, Value::Number(Number::Double(number))),
                _ => Value::String(text),
            },
            #[expect(clippy::cast_possible_truncation, reason = "the field has this precision")]
            (Kind::Float, Value::Number(number @ Number::Double(value))) if value.fract() != 0.0 => {
                let value = value as f32;
                Value::Number(if value.is_finite() { Number::Float(value) } else { number })
            }
            (_, Value::Number(number)) => Value::Number(whole(number)),
            (Kind::Bytes, Value::String(text)) => {
                let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
                match engines.iter().find_map(|engine| engine.decode(text.as_bytes()).ok()) {
                    Some(bytes) => Value::String(STANDARD.encode(bytes).into()),
                    None => Value::String(text),
                }
            }
            (_, value) => value,
        }
    }

    fn any<'a>(&self, value: Value<'a>) -> Value<'a> {
        let Value::Object(_, mut fields) = value else { return value };
        let Some(at) = fields.iter().position(|(name, _)| name == TYPE) else {
            return Value::Object(Shape::Message, fields);
        };
        let (name, url) = fields.remove(at);
        let full_name = url.as_str().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        let mut typed = vec![(name, url.clone())];
        match POOL.get_message_by_name(full_name) {
            Some(descriptor) if is_special(full_name) => {
                typed
                    .extend(fields.into_iter().map(|(name, value)| (name, self.message(&descriptor, value))));
            }
            Some(descriptor) => match self.message(&descriptor, Value::Object(Shape::Free, fields)) {
                Value::Object(_, fields) => typed.extend(fields),
                value => typed.push(("value".into(), value)),
            },
            None => typed.append(&mut fields),
        }
        Value::Object(Shape::Message, typed)
    }
}

/// Whether a packed message stands in a field `value`.
fn is_special(name: &str) -> bool {
    let of_its_own = ["Any", "Struct", "Value", "ListValue", "Duration", "Timestamp"];
    is_wrapper(name) || name.strip_prefix("google.protobuf.").is_some_and(|name| of_its_own.contains(&name))
}

fn is_wrapper(name: &str) -> bool {
    name.starts_with("google.protobuf.")
        && name.ends_with("Value")
        && !matches!(name, "google.protobuf.Value" | "google.protobuf.ListValue")
}

fn is_value(kind: &Kind) -> bool {
    kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.Value")
}

fn is_default(kind: &Kind, value: &Value<'_>) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == 0.0,
        Value::String(text) => match kind {
            Kind::Enum(kind) => kind.default_value().name() == text,
            Kind::Message(_) => false,
            Kind::String | Kind::Bytes => text.is_empty(),
            _ => text == "0",
        },
        _ => false,
    }
}

/// A whole number is an integer, however it was written.
fn whole(number: Number) -> Number {
    /// 2^63.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    match number {
        Number::Double(value) if value.fract() == 0.0 && (0.0..LIMIT).contains(&value) => {
            Number::Positive(value as u64)
        }
        Number::Double(value) if value.fract() == 0.0 && (-LIMIT..0.0).contains(&value) => {
            Number::Negative(value as i64)
        }
        number => number,
    }
}

/// Any JSON: names sorted.
fn free(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Object(_, fields) => {
            let mut fields: Fields<'_> =
                fields.into_iter().map(|(name, value)| (name, free(value))).collect();
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(Shape::Free, fields)
        }
        Value::List(_, items) => Value::List(Shape::Free, items.into_iter().map(free).collect()),
        Value::Number(number) => Value::Number(whole(number)),
        value => value,
    }
}

/// Fractions of a second have 0, 3, 6 or 9 digits.
fn fraction(digits: &str) -> Option<String> {
    if digits.len() > 9 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_end_matches('0');
    let length = digits.len().div_ceil(3) * 3;
    Some(if length == 0 { String::new() } else { format!(".{digits:0<length$}") })
}

fn duration(value: Value<'_>) -> Value<'_> {
    let Value::String(text) = &value else { return value };
    let canonical = || {
        let (whole, digits) = text.strip_suffix('s')?.split_once('.')?;
        Some(format!("{whole}{}s", fraction(digits)?))
    };
    canonical().map_or_else(|| value.clone(), |text| Value::String(text.into()))
}

fn timestamp(value: Value<'_>) -> Value<'_> {
    let Value::String(text) = &value else { return value };
    let canonical = || {
        let at = time::OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(time::UtcOffset::UTC);
        let seconds = at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()?;
        let fraction = fraction(&format!("{:09}", at.nanosecond()))?;
        Some(format!("{}{fraction}Z", seconds.strip_suffix('Z')?))
    };
    canonical().map_or_else(|| value.clone(), |text| Value::String(text.into()))
}

#[cfg(test)]
mod tests;
