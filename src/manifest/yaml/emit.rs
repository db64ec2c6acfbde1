//! One document by libyaml's emitter, laid out as go-yaml lays it out: by two spaces, in UTF-8, no line folded.

use libyaml_safer::{Emitter, Encoding, Error, Event};

/// The text of the document whose values `content` emits, without `---`, ending with a line break.
pub(crate) fn emit(content: impl FnOnce(&mut Emitter<'_>) -> Result<(), Error>) -> Result<String, Error> {
    let mut out = Vec::new();
    let mut emitter = Emitter::new();
    emitter.set_output_string(&mut out);
    emitter.set_unicode(true);
    emitter.set_width(-1);
    emitter.emit(Event::stream_start(Encoding::Utf8))?;
    emitter.emit(Event::document_start(None, &[], true))?;
    content(&mut emitter)?;
    emitter.emit(Event::document_end(true))?;
    emitter.emit(Event::stream_end())?;
    emitter.flush()?;
    drop(emitter);
    Ok(String::from_utf8_lossy(&out).into_owned())
}
