//! Templates (minijinja).

use super::Request;
use super::error::RenderError;
use super::objects::Text;
use super::path;
use super::reader::Reader;
use super::settings::{SETTINGS_FILE, Settings};

pub(super) fn render(
    _request: &Request<'_>,
    _reader: &Reader<'_>,
    directory: &str,
    _settings: &Settings,
) -> Result<Vec<Text>, RenderError> {
    Err(RenderError::Later { path: path::child(directory, SETTINGS_FILE), what: "`render: template`" })
}
