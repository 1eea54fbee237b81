//! Filters that are discovered by themselves (ECDS).

use crate::dump::view::Filter;
use crate::dump::{ConfigDump, Error, section};
use crate::json::{Shape, Value};
use crate::render::table::{Table, WIDE};
use crate::schema::Schema;

const TYPE: &str = "envoy.admin.v3.EcdsConfigDump";

/// All of it, of all sections.
pub(super) fn whole<'a>(dump: &ConfigDump<'a>) -> Result<Value<'a>, Error> {
    let mut all = Vec::new();
    for text in dump.sections(section::EXTENSIONS)? {
        let value =
            serde_json::from_str(text).map_err(|source| Error::Part { what: "an extension", source })?;
        let Value::Object(_, fields) = value else { continue };
        for (name, value) in fields {
            if let ("ecds_filters" | "ecdsFilters", Value::List(_, filters)) = (name.as_ref(), value) {
                all.extend(filters);
            }
        }
    }
    let whole = vec![("ecdsFilters".into(), Value::List(Shape::Field, all))];
    Ok(Schema::default().canonical(TYPE, Value::Object(Shape::Message, whole)))
}

/// The table.
pub(super) fn summary(dump: &ConfigDump<'_>) -> Result<String, Error> {
    let mut rows = Vec::new();
    for resource in dump.extensions()? {
        // `envoy.config.core.v3.TypedExtensionConfig` has the fields of a filter.
        let filter: Filter<'_> = resource.read()?;
        rows.push([filter.type_name(), filter.name.to_string()]);
    }
    rows.sort();
    let mut table = Table::new(WIDE);
    table.row(["ECDS NAME", "TYPE"]);
    for [type_name, name] in rows {
        table.row([name, type_name]);
    }
    Ok(table.render())
}
