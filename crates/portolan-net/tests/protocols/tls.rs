//! TLS by rustls.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{connect, hosts};

/// A certificate of `portolan.test`, signed by itself; made by
/// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1`, valid for a hundred years.
const CERTIFICATE: &[u8] = include_bytes!("data/certificate.der");
const KEY: &[u8] = include_bytes!("data/key.der");

#[tokio::test]
async fn an_echo_in_tls() {
    let (client, listener) = hosts();
    let certificate = CertificateDer::from(CERTIFICATE);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        stream.shutdown().await.unwrap();
    });

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "portolan.test".try_into().unwrap();
    let mut stream = connector.connect(name, connect(&client).await).await.unwrap();
    let said = vec![b'x'; 300_000];
    stream.write_all(&said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(heard == said);
    server.await.unwrap();
}
