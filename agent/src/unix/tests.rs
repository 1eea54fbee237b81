use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn replaces_what_a_dead_process_left_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (access, mode, above) in [(Access::Proxy, 0o660, 0o750), (Access::Anyone, 0o666, 0o755)] {
        let path = dir.path().join(format!("{mode}/b/socket"));
        drop(listen(&path, access).await.unwrap());
        assert!(path.exists());
        let socket = listen(&path, access).await.unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode_of(&path), mode);
        assert_eq!(mode_of(path.parent().unwrap()), above);
        assert!(matches!(listen(&path, access).await, Err(Error::InUse(_))));
        drop(socket);
    }
}

#[tokio::test]
async fn nothing_but_the_socket_itself_gets_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("socket"), dir.path().join("other"));
    fs::write(&other, "").unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert!(socket::admit(&path, Access::Anyone).is_err(), "a link");
    assert!(socket::admit(&other, Access::Anyone).is_err(), "a file");
    assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
    drop(listen(&path, Access::Anyone).await.unwrap());
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[tokio::test]
async fn a_server_that_is_busy_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let server = with_a_full_queue(&path);
    assert!(matches!(listen(&path, Access::Proxy).await, Err(Error::InUse(_))));
    drop(server);
}

/// A listener that accepts nobody, and as many clients as it has room for.
fn with_a_full_queue(path: &Path) -> (std::os::fd::OwnedFd, Vec<std::os::unix::net::UnixStream>) {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    use std::os::fd::AsRawFd as _;

    let server = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(server.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    (server, vec![std::os::unix::net::UnixStream::connect(path).unwrap()])
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_predecessor_that_is_about_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let before = listen(&path, Access::Proxy).await.unwrap();
    let (opened, ()) = tokio::join!(open("test", &path, Access::Proxy), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(before);
    });
    let opened = opened.unwrap();
    let error = open("test", &path, Access::Proxy).await.unwrap_err();
    assert!(error.to_string().contains("another process serves it already"), "{error}");
    drop(opened);
}

#[test]
fn admits_root_itself_and_the_proxy() {
    let own = nix::unistd::geteuid().as_raw();
    for uid in [0, own, 1337] {
        assert!(Access::Proxy.admits(uid));
    }
    let stranger = own + 4242;
    assert!(!Access::Proxy.admits(stranger));
    assert!(Access::Anyone.admits(stranger));
}

type Client = hyper::client::conn::http2::SendRequest<String>;

/// A server that says yes.
async fn start(path: &Path, access: Access, tasks: &Tasks) {
    let files = Files::start(tasks, |path, error| panic!("{}: {error}", path.display()));
    let socket = listen(path, access).await.unwrap();
    let yes = hyper::service::service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new("yes".to_owned()))
    });
    serve(tasks, "test", socket, &files, yes);
}

async fn connect(path: &Path, tasks: &Tasks) -> Client {
    let stream = UnixStream::connect(path).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    drop(tasks.spawn("client", connection));
    client
}

async fn is_answered(client: &mut Client) -> bool {
    let request = Request::get("http://agent/").body(String::new()).unwrap();
    timeout(PATIENCE, client.send_request(request)).await.unwrap().is_ok()
}

#[tokio::test]
async fn a_socket_that_is_removed_is_made_again_and_streams_go_on() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let path = dir.path().join("sub/socket");
    start(&path, Access::Proxy, &tasks).await;
    let mut before = connect(&path, &tasks).await;
    assert!(is_answered(&mut before).await);
    let there = async || {
        timeout(PATIENCE, async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    };
    fs::remove_file(&path).unwrap();
    there().await;
    // Another kind of file in its place, and no directory at all.
    fs::write(dir.path().join("sub/other"), "").unwrap();
    fs::rename(dir.path().join("sub/other"), &path).unwrap();
    there().await;
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    there().await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut after = connect(&path, &tasks).await;
    assert!(is_answered(&mut after).await);
    assert!(is_answered(&mut before).await, "the stream of before is not touched");
}

/// Whether a process of another user gets an answer. Needs root, and curl.
async fn stranger_is_answered(path: &Path, uid: u32) -> bool {
    let mut command = Command::new("curl");
    command
        .args(["-s", "-m", "20", "--http2-prior-knowledge", "--unix-socket"])
        .arg(path)
        .arg("http://agent/");
    command.uid(uid).gid(uid);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    output.status.success() && output.stdout == b"yes"
}

#[tokio::test]
async fn other_users_are_refused_unless_everybody_is_let_in() {
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    if nix::unistd::geteuid().as_raw() != 0 || !has_curl {
        println!("skipped: needs root and curl");
        return;
    }
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (closed, open) = (dir.path().join("closed"), dir.path().join("open"));
    start(&closed, Access::Proxy, &tasks).await;
    start(&open, Access::Anyone, &tasks).await;
    assert!(stranger_is_answered(&closed, 1337).await);
    assert!(!stranger_is_answered(&closed, 4242).await, "the mode of the file keeps it out");
    fs::set_permissions(&closed, Permissions::from_mode(0o666)).unwrap();
    assert!(!stranger_is_answered(&closed, 4242).await, "its user is looked at as well");
    assert!(stranger_is_answered(&open, 4242).await);
}
