//! A WorkloadGroup.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::pairs;
use crate::args::workload::Create as Args;
use crate::render::yaml;

/// Its text.
///
/// # Errors
/// When it has no name or namespace, or a port is none.
pub(super) fn create(args: &Args, namespace: Option<&str>) -> anyhow::Result<String> {
    if args.name.is_empty() {
        bail!("expecting a workload name");
    }
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else {
        bail!("expecting a workload namespace");
    };
    let mut ports: BTreeMap<String, u16> = BTreeMap::new();
    for (name, port) in pairs("--ports", &args.ports)? {
        let number = port.parse().ok().filter(|number| *number > 0);
        let number =
            number.with_context(|| format!("--ports {name}={port}: a port is a number from 1 to 65535"))?;
        ports.insert(name, number);
    }
    let group = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": args.name, "namespace": namespace},
        "spec": {
            "metadata": without_empty(json!({
                "labels": pairs("--labels", &args.labels)?,
                "annotations": pairs("--annotations", &args.annotations)?,
            })),
            "template": without_empty(json!({
                "ports": ports,
                "serviceAccount": args.service_account,
                "network": args.network,
                "locality": args.locality,
                "weight": args.weight,
            })),
        },
    });
    let text = serde_json::to_string(&group)?;
    Ok(yaml::render(&serde_json::from_str(&text)?))
}

/// Only what says something.
fn without_empty(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let says = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_u64() != Some(0),
        _ => true,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| says(value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::workload::{Group, Workload};
    use crate::args::{Cli, Command, Experimental};

    fn created(flags: &[&str]) -> anyhow::Result<String> {
        let line = ["istioctl", "x", "workload", "group", "create"].iter().chain(flags);
        let cli = Cli::try_parse_from(line)?;
        let Command::Experimental {
            command: Experimental::Workload { command: Workload::Group { command: Group::Create(args) } },
        } = &cli.command
        else {
            bail!("another command")
        };
        create(args, cli.global.namespace.as_deref())
    }

    #[test]
    fn a_group_says_what_was_given() {
        let flags = [
            "--name=foo",
            "-n=bar",
            "--labels=app=foo,bar=baz",
            "--annotations=annotation=foobar",
            "--ports=http=8080,grpc=3550",
            "--serviceAccount=sa",
        ];
        assert_eq!(
            created(&flags).unwrap(),
            "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata:\n  name: foo\n  namespace: bar\n\
             spec:\n  metadata:\n    annotations:\n      annotation: foobar\n    labels:\n      app: foo\n      bar: baz\n  \
             template:\n    ports:\n      grpc: 3550\n      http: 8080\n    serviceAccount: sa\n"
        );
        let flags = ["--name=foo", "-n=bar", "-w=3", "--locality=x/y", "--network=n"];
        assert!(created(&flags).unwrap().ends_with(
            "spec:\n  metadata: {}\n  template:\n    locality: x/y\n    network: \"n\"\n    serviceAccount: default\n    weight: 3\n"
        ));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (flags, what) in [
            (&["-n=bar"][..], "expecting a workload name"),
            (&["--name=foo"], "expecting a workload namespace"),
            (&["--name=foo", "-n=bar", "-p=a=b"], "--ports a=b: a port"),
            (&["--name=foo", "-n=bar", "-p=a=65536"], "65535"),
            (&["--name=foo", "-n=bar", "-l=a"], "--labels \"a\": write NAME=VALUE"),
        ] {
            assert!(created(flags).unwrap_err().to_string().contains(what), "{flags:?}");
        }
    }
}
