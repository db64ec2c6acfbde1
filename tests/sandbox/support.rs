//! A running sandbox and its clients.

use std::time::Duration;

use afresh::sandbox::{Options, Sandbox};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};

/// Longest that a test waits for something that takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub sandbox: Sandbox,
    pub client: Client,
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Raw {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Raw {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

pub async fn cluster() -> Cluster {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let mut config = Config::new(sandbox.url().parse().unwrap());
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    Cluster { sandbox, client }
}

impl Cluster {
    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Raw {
        self.send_as(method, path, content_type, "application/json", body).await
    }

    pub async fn send_as(&self, method: &str, path: &str, content_type: &str, accept: &str, body: &Value) -> Raw {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send_bytes(method, path, content_type, accept, body).await
    }

    pub async fn send_bytes(&self, method: &str, path: &str, content_type: &str, accept: &str, body: Vec<u8>) -> Raw {
        let mut request = http::Request::builder().method(method).uri(path).header("accept", accept);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().unwrap_or_default().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Raw { code, body, warnings }
    }

    pub async fn get(&self, path: &str) -> Raw {
        self.send("GET", path, "", &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Raw {
        self.send("POST", path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Raw {
        self.send("PUT", path, "application/json", body).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Raw {
        self.send("PATCH", path, "application/merge-patch+json", body).await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> Raw {
        let path = format!("{path}?fieldManager=tester&force=true");
        self.send("PATCH", &path, "application/apply-patch+yaml", body).await
    }

    pub async fn delete(&self, path: &str) -> Raw {
        self.send("DELETE", path, "", &Value::Null).await
    }

    /// Waits until a GET says what is expected.
    pub async fn until(&self, path: &str, what: &str, holds: impl Fn(&Raw) -> bool) -> Raw {
        let wait = async {
            loop {
                let answer = self.get(path).await;
                if holds(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("`{path}` never became {what}"))
    }
}

pub fn config_map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "example.com/web:1" }] },
            },
        },
    })
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
