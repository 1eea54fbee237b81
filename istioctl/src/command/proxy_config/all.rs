//! Everything.

use std::io::Write;

use super::listener::Which;
use super::{Format, bootstrap, cluster, endpoint, listener, route, secret};
use crate::args::proxy_config::{All as Args, EndpointFilter};
use crate::dump::ConfigDump;
use crate::failure::Result;
use crate::render::yaml;

pub(super) fn show(args: &Args, text: &str, out: &mut impl Write) -> Result {
    match Format::parse(&args.output.output)? {
        Format::Short => summary(args, text, out),
        // As it came.
        Format::Json => Ok(writeln!(out, "{text}")?),
        Format::Yaml => {
            yaml::stream(text, out)?;
            Ok(writeln!(out)?)
        }
    }
}

fn summary(args: &Args, text: &str, out: &mut impl Write) -> Result {
    let dump = ConfigDump::parse(text)?;
    let head = |name: &str| {
        if args.with_headers { format!("------ {name} ------\n\n") } else { String::new() }
    };
    write!(out, "{}{}", head("BOOTSTRAP INFO"), bootstrap::summary(&dump)?)?;
    let clusters = cluster::summary(&dump, &args.cluster, args.port, true)?;
    write!(out, "\n{}{clusters}", head("CLUSTER INFO"))?;
    let which =
        Which { address: &args.address, port: args.port, kind: &args.kind, is_verbose: args.verbose.verbose };
    write!(out, "\n{}{}", head("LISTENER INFO"), listener::summary(&dump, &which, true)?)?;
    let routes = route::summary(&dump, &args.name, args.verbose.verbose, "route/")?;
    write!(out, "\n{}{routes}", head("ROUTE INFO"))?;
    write!(out, "\n{}{}", head("SECRET INFO"), secret::summary(&dump, "secret/")?)?;
    let filter =
        EndpointFilter { address: args.address.clone(), port: args.port, ..EndpointFilter::default() };
    write!(out, "\n{}{}", head("ENDPOINTS INFO"), endpoint::summary(&dump, &filter, "endpoint/")?)?;
    Ok(())
}
