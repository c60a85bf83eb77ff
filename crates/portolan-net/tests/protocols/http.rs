//! HTTP/1.1 and HTTP/2 by hyper.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{SERVER, connect, hosts};

/// Answers with the method, the path and the body of the request.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = format!("{} {} ", request.method(), request.uri().path()).into_bytes();
    answer.extend_from_slice(&request.into_body().collect().await.unwrap().to_bytes());
    Ok(Response::new(Full::from(answer)))
}

fn request(number: usize) -> (Request<Full<Bytes>>, Vec<u8>) {
    let body = vec![b'a' + (number % 26) as u8; number * 3001];
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{SERVER}/{number}"))
        .header("host", SERVER)
        .body(Full::from(body.clone()))
        .unwrap();
    let mut expected = format!("POST /{number} ").into_bytes();
    expected.extend_from_slice(&body);
    (request, expected)
}

async fn body(response: Response<Incoming>) -> Bytes {
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn http_1() {
    let (client, listener) = hosts();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    for _ in 0..3 {
        let stream = TokioIo::new(connect(&client).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        // Several requests over one connection.
        for number in 0..20 {
            let (request, expected) = request(number);
            assert_eq!(body(sender.send_request(request).await.unwrap()).await, expected);
        }
        drop(sender);
        connection.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn http_2() {
    let (client, listener) = hosts();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .serve_connection(TokioIo::new(stream), service_fn(echo))
            .await
            .unwrap();
    });
    let stream = TokioIo::new(connect(&client).await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    // All at once over one connection.
    let requests: Vec<_> = (0..50)
        .map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let (request, expected) = request(number);
                assert_eq!(body(sender.send_request(request).await.unwrap()).await, expected);
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
}
