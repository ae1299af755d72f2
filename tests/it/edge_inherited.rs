//! Sockets that somebody else has bound: systemd's, or whatever speaks as it does (sd_listen_fds(3)).

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::support::{http, soon};

/// Two descriptors become numbers 3 and 4 of a process that then becomes the daemon, so that its id is the one that is named.
const HAND_OVER: &str = r#"exec 3<&"$1" 4<&"$2" && LISTEN_FDS=2 LISTEN_PID=$$ exec "$3" run --config "$4""#;

#[tokio::test]
async fn sockets_that_were_handed_over_are_listened_on_and_the_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("cxgate.toml");
    // Addresses that nobody could bind.
    std::fs::write(&configuration, "[listen]\naddress = \"192.0.2.1:1\"\n[admin]\naddress = \"127.0.0.2:1\"\n").unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [proxy, admin]: [SocketAddr; 2] = [0, 1].map(|index| sockets[index].local_addr().unwrap());
    // Duplicates of standard streams are the only descriptors that a child inherits.
    let [first, second] = sockets.map(|socket| Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let mut daemon = Command::new("bash")
        .args(["-c", HAND_OVER, "bash", "0", "1", env!("CARGO_BIN_EXE_cxgate")])
        .arg(&configuration)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdin(first)
        .stdout(second)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let told = tokio::task::spawn_blocking(move || {
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        (String::from_utf8(message[..length].to_vec()).unwrap(), manager)
    });
    let (ready, manager) = soon(told).await.unwrap();
    assert_eq!(ready, "READY=1");
    assert_eq!(http::get(proxy, "/nowhere", &[]).await.status, 404);
    assert_eq!(http::get(admin, "/livez", &[]).await.status, 200);

    let id = daemon.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    assert!(soon(daemon.wait()).await.unwrap().success());
    let mut message = [0; 64];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"STOPPING=1");
}
