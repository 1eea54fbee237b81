use std::fs;

use clap::Parser as _;

use super::*;
use crate::args::Cli;

#[test]
fn names_have_a_type_and_a_namespace() {
    let target = |text: &str| {
        let Target { kind, name, namespace } = Target::parse(text);
        (kind.unwrap_or_default(), name, namespace.unwrap_or_default())
    };
    let parts =
        |kind: &str, name: &str, namespace: &str| (kind.to_owned(), name.to_owned(), namespace.to_owned());
    assert_eq!(target("web-0"), parts("", "web-0", ""));
    assert_eq!(target("web-0.shop"), parts("", "web-0", "shop"));
    assert_eq!(target("pod/web.v1.shop"), parts("", "web.v1", "shop"));
    assert_eq!(target("Deployment/web.shop"), parts("deployment", "web", "shop"));
    assert_eq!(target("deployments.apps/web"), parts("deployments.apps", "web", ""));
}

const PODS: &str = "
istiods: [{name: istiod-0}]
token: token
objects: objects
pods:
- {name: web-1, namespace: shop, labels: {app: web}}
- {name: db-0, labels: {app: db}}
- {name: db-0, namespace: shop, labels: {app: db}}
";

fn mesh(text: &str, flags: &[&str]) -> (tempfile::TempDir, anyhow::Result<Mesh>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    let inside = text.replace("token: token", &format!("token: {}", dir.path().join("token").display()));
    fs::write(&path, inside.replace("objects: objects", &format!("objects: {}", dir.path().display())))
        .unwrap();
    fs::write(dir.path().join("token"), "secret\n").unwrap();
    fs::write(
        dir.path().join("service.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n",
    )
    .unwrap();
    let path = path.display().to_string();
    let line = ["istioctl", "--mesh", &path].into_iter().chain(flags.iter().copied()).chain(["validate"]);
    let global = Cli::try_parse_from(line).unwrap().global;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mesh = runtime.block_on(Mesh::open(&global));
    (dir, mesh)
}

fn names(mesh: &Mesh, name: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(mesh.proxies(name));
    found.map(|all| all.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
}

#[test]
fn pods_of_a_file_are_found_by_each_name() {
    let (_dir, mesh) = mesh(PODS, &[]);
    let mesh = mesh.unwrap();
    assert_eq!(names(&mesh, "web-1").unwrap(), ["web-1.shop"]);
    assert_eq!(names(&mesh, "deployment/web").unwrap(), ["web-1.shop"]);
    assert_eq!(names(&mesh, "svc/front.shop").unwrap(), ["web-1.shop"]);
    assert_eq!(names(&mesh, "db-0.default").unwrap(), ["db-0.default"]);
    for (name, told) in [
        ("db-0", "\"db-0\" is one of db-0.default, db-0.shop: give its namespace"),
        ("web", "there is no pod \"web\"; did you mean web-1.shop?"),
        ("web-1.default", "there is no pod \"web-1\"; there is one in the namespace shop: give -n"),
        ("deployment/none", "no pods match \"deployment/none\""),
    ] {
        assert_eq!(names(&mesh, name).unwrap_err(), told);
    }
    let (_dir, inside) = self::mesh(PODS, &["-n", "shop"]);
    assert_eq!(names(&inside.unwrap(), "db-0").unwrap(), ["db-0.shop"]);
}

#[test]
fn a_file_that_says_something_unknown_is_refused() {
    let (_dir, mesh) = mesh("pod: []", &[]);
    let told = format!("{:#}", mesh.unwrap_err());
    assert!(told.contains("--mesh") && told.contains("pod"), "{told}");
}

#[test]
fn the_token_of_a_file_is_read() {
    let (_dir, mesh) = mesh(PODS, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(mesh.unwrap().credentials()).unwrap().token.as_deref(), Some("secret"));
}

#[test]
fn a_program_that_prints_a_token_waits_for_no_input() {
    let (_dir, mesh) = mesh("tokenCommand: [sh, -c, 'cat; echo printed']\n", &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let token = |mesh: anyhow::Result<Mesh>| runtime.block_on(mesh.unwrap().credentials());
    assert_eq!(token(mesh).unwrap().token.as_deref(), Some("printed"));
    let (_dir, mesh) = self::mesh("tokenCommand: [sh, -c, 'echo why >&2; exit 1']\n", &[]);
    assert_eq!(token(mesh).unwrap_err().to_string(), "tokenCommand sh: why");
}
