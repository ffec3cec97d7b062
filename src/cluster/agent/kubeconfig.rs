//! A kubeconfig for a scanner that talks to the API server by itself: made in the scanner's pod, from the token and the CA that
//! the kubelet mounted there, so that no token passes through anybody's hands.
//!
//! It has the token twice: clients of Kubernetes' own library (kubectl) read `tokenFile` again when the kubelet has renewed the
//! token, and take it before `token`; others, as k8s-ruby, know only `token`. The server is named by its address, since
//! nothing in the pod may ask for names; its certificate is verified by the name that every API server has in the cluster, where
//! the client can be told so, and by the address elsewhere. Clients that know of `proxy-url` go through the
//! [relay](super::relay), by which their connections are known; others are seen by their sockets alone.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::relay::Relay;

/// The file of the token in the folder that the kubelet mounts.
pub const TOKEN_FILE: &str = "token";
/// The file of the cluster's CA there.
pub const CA_FILE: &str = "ca.crt";

/// The name that an API server has in its cluster (kube-apiserver's serving certificate, "kubernetes.default.svc").
pub(in crate::cluster) const SERVER_NAME: &str = "kubernetes.default.svc";

/// How long the network may take to let this pod through: policies are programmed some time after it got its address.
const OPEN: Duration = Duration::from_secs(60);
/// How long one attempt to connect may take: behind a policy that drops, it gets no answer.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What the kubeconfig is made of.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Its addresses; the first that answers is taken.
    pub servers: Vec<SocketAddr>,
    /// The folder with [`TOKEN_FILE`] and [`CA_FILE`].
    pub identity: PathBuf,
    /// Where the kubeconfig is written, with mode 0600.
    pub kubeconfig: PathBuf,
    /// The namespace of its context.
    pub namespace: String,
}

/// Waits until the API server can be reached, and writes the kubeconfig; gives the relay that it names, which has to be run.
/// Errors are for people.
///
/// # Errors
/// When none of the addresses answers, or a file can't be read or written.
pub async fn write(api: &ApiServer) -> Result<Relay, String> {
    let server = reachable(&api.servers).await?;
    let relay = Relay::listen(api.servers.iter().copied()).await.map_err(|error| error.to_string())?;
    let proxy = relay.address().map_err(|error| error.to_string())?;
    let read = |name: &str| {
        let path = api.identity.join(name);
        fs::read_to_string(&path).map_err(|error| format!("`{}`: {error}", path.display()))
    };
    let token = Zeroizing::new(read(TOKEN_FILE)?);
    let document =
        document((server, proxy), &read(CA_FILE)?, token.trim(), &api.identity.join(TOKEN_FILE), &api.namespace);
    let text = Zeroizing::new(document.to_string());
    let path = &api.kubeconfig;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(relay)
}

/// The kubeconfig, as JSON, which every reader of YAML understands.
fn document(
    (server, proxy): (SocketAddr, SocketAddr),
    ca: &str,
    token: &str,
    token_file: &Path,
    namespace: &str,
) -> Value {
    let name = "gapscan";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{server}"),
            "proxy-url": format!("http://{proxy}"),
            "tls-server-name": SERVER_NAME,
            "certificate-authority-data": STANDARD.encode(ca),
        } }],
        "users": [{ "name": name, "user": { "token": token, "tokenFile": token_file } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": namespace } }],
        "current-context": name,
    })
}

pub(super) async fn reachable(servers: &[SocketAddr]) -> Result<SocketAddr, String> {
    let look = async {
        loop {
            for server in servers {
                if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT, TcpStream::connect(server)).await {
                    return *server;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let named = || servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tokio::time::timeout(OPEN, look)
        .await
        .map_err(|_| format!("the API server did not answer at {} within {} s", named(), OPEN.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use kube::config::Kubeconfig;

    use super::*;

    #[tokio::test]
    async fn it_is_private_verifies_and_names_who_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let open = listener.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(TOKEN_FILE), "t0ken\n").expect("written");
        fs::write(folder.path().join(CA_FILE), "the CA").expect("written");
        let api = ApiServer {
            servers: vec![closed, open],
            identity: folder.path().to_owned(),
            kubeconfig: folder.path().join("config"),
            namespace: "shop".to_owned(),
        };
        write(&api).await.expect("it is written");
        let mode = fs::metadata(&api.kubeconfig).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Kubeconfig::read_from(&api.kubeconfig).expect("a kubeconfig");
        let cluster = read.clusters[0].cluster.as_ref().expect("a cluster");
        assert_eq!(cluster.server.as_deref(), Some(format!("https://{open}").as_str()));
        assert_eq!(cluster.tls_server_name.as_deref(), Some(SERVER_NAME));
        assert_eq!(cluster.insecure_skip_tls_verify, None);
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some(STANDARD.encode("the CA").as_str()));
        let user = read.auth_infos[0].auth_info.as_ref().expect("a user");
        assert_eq!(user.token_file.as_deref(), folder.path().join(TOKEN_FILE).to_str());
        assert_eq!(fs::read_to_string(&api.kubeconfig).expect("text").matches("\"t0ken\"").count(), 1);
        assert!(write(&api).await.is_err(), "what is there already is not trusted");
    }
}
