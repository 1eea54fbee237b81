//! Forms in which answers are printed.

pub mod json;
pub mod plain;
pub mod table;
pub mod yaml;
