//! Downloads, from web servers and registries.

use ::http::Uri;
use http_body_util::BodyExt as _;

use super::super::http::{self, Answer, AsHttp, Ask, Client, shown};
use super::super::oci::{Reference, Registry};
use super::super::plugin::Wish;
use super::super::store::{self, Download, Form, Module};
use super::super::{guard::Guard, oci};
use super::{Cache, Failure, Found, Source};

impl AsHttp for Failure {
    fn http(&self) -> Option<&http::Error> {
        match self {
            Self::Http(error) => Some(error),
            Self::Image { source, .. } => source.http(),
            _ => None,
        }
    }
}

impl Cache {
    fn client(&self) -> Client {
        Client {
            guard: Guard { blocked: self.settings.blocked.clone() },
            tasks: self.tasks.clone(),
            roots: self.settings.roots.clone(),
            timeout: self.settings.request_timeout,
            attempts: self.settings.attempts,
        }
    }

    fn is_insecure(&self, host: &str) -> bool {
        self.settings.insecure.iter().any(|name| name == "*" || name == host)
    }

    pub(super) async fn fetch_web(&self, url: &Uri, source: &Source, wish: &Wish) -> Result<Found, Failure> {
        let authority = url.authority().map(|all| all.as_str()).unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let ask = Ask::get(url.clone(), self.is_insecure(host));
        let client = self.client();
        let module = client
            .retry(url, || async {
                let answer = client.send(&ask).await?.ok().await?;
                self.download(answer, source, wish, Form::Any).await
            })
            .await?;
        let checksum = match &wish.checksum {
            None => module.sha256.clone(),
            Some(expected) if [&module.raw, &module.sha256].contains(&expected) => expected.clone(),
            Some(expected) => {
                let (got, expected) = (module.sha256, expected.clone());
                return Err(Failure::Checksum { url: shown(url), got, expected });
            }
        };
        self.add(source, wish, &checksum, module)
    }

    pub(super) async fn fetch_image(
        &self,
        reference: &Reference,
        source: &Source,
        wish: &Wish,
    ) -> Result<Found, Failure> {
        let failed = |error| Failure::Image { reference: reference.to_string(), source: error };
        let credentials = oci::credentials(reference, wish.secret.as_ref(), &self.settings.docker_configs)
            .map_err(failed)?;
        let insecure = self.is_insecure(reference.host());
        let registry = Registry::new(self.client(), reference.clone(), credentials, insecure);
        let image = registry.image().await.map_err(failed)?;
        let checksum = match &wish.checksum {
            None => reference.digest().unwrap_or(&image.digest).to_owned(),
            Some(expected) if image.is_known_as(expected) => expected.clone(),
            Some(expected) => {
                let (url, got) = (source.shown(), image.digest);
                return Err(Failure::Checksum { url, got, expected: expected.clone() });
            }
        };
        // The tag may lead to what is there already.
        if let Some(found) = self.look_up(source, wish, Some(&checksum)) {
            return Ok(found);
        }
        let url = registry.blob_url(&image.layer);
        let blob = |error| failed(oci::Error::Blob(Box::new(error)));
        // As long as it takes: layers are large, and their digest is known.
        let client = Client { timeout: wish.timeout, ..self.client() };
        let module = client
            .retry(&url, || async {
                let answer = registry.blob(&url).await.map_err(blob)?;
                self.download(answer, source, wish, image.layer.form).await
            })
            .await?;
        if module.raw != image.layer.digest {
            let (url, got) = (source.shown(), module.raw);
            return Err(Failure::Checksum { url, got, expected: image.layer.digest });
        }
        self.add(source, wish, &checksum, module)
    }

    /// Receives the body of an answer into the directory of the module.
    async fn download(
        &self,
        answer: Answer,
        source: &Source,
        wish: &Wish,
        form: Form,
    ) -> Result<Module, Failure> {
        let place = store::place(&self.settings.dir, &source.name(&wish.url), "");
        let dir = place.parent().unwrap_or(&self.settings.dir).to_owned();
        let download = Download::begin(dir, form, self.settings.max_bytes);
        let url = shown(&answer.url);
        let mut body = answer.response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| http::Error::Http { url: url.clone(), source })?;
            if let Ok(bytes) = frame.into_data()
                && !download.add(bytes).await
            {
                break;
            }
        }
        download.finish().await.map_err(|error| Failure::Store { url: source.shown(), source: error })
    }
}
