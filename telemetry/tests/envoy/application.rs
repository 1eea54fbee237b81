//! What the proxies lead to: an HTTP server and an echo of bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Both, until the test ends.
pub(crate) struct Application {
    /// Port of HTTP.
    pub(crate) http: u16,
    /// Port of the echo.
    pub(crate) echo: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Application {
    /// Starts them on free ports.
    pub(crate) fn start() -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let http = {
            let requests = Arc::clone(&requests);
            serve(move |stream| {
                let _ = answer(stream, &requests);
            })
        };
        let echo = serve(|mut stream| {
            let mut writer = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut stream, &mut writer);
        });
        Self { http, echo, requests }
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            thread::spawn(move || each(stream));
        }
    });
    port
}

fn answer(stream: TcpStream, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_lowercase();
        requests.lock().unwrap().push(head.clone());
        if head.contains("transfer-encoding: chunked") {
            // Up to the last chunk, which is empty.
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                if reader.read_until(b'\n', &mut body)? == 0 {
                    return Ok(());
                }
            }
        } else if let Some(length) = head.split("content-length: ").nth(1) {
            let length = length.lines().next().unwrap_or_default().parse().unwrap_or(0);
            reader.read_exact(&mut vec![0; length])?;
        }
        if head.starts_with("post /reset") {
            return Ok(());
        }
        if head.starts_with("post /grpc") {
            // Three messages: of no, of no and of one byte.
            writer.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
                  a\r\n\0\0\0\0\0\0\0\0\0\0\r\n6\r\n\0\0\0\0\x01c\r\n0\r\ngrpc-status: 5\r\n\r\n",
            )?;
        } else {
            writer.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-envoy-peer-metadata: spoofed\r\n\r\nhello",
            )?;
        }
    }
}
