//! What a result file says of where it comes from, besides its verdicts: what was scanned, by which profile, and when.
//!
//! Only what is said without a doubt counts: a time without a zone is no moment, a name that could be that of several kinds of
//! target names none. It is read from the same bytes as the verdicts, and after they were found to be a whole result, so that
//! nothing is refused here that is none there.

use std::io::Read;

use jiff::Timestamp;

use super::ResultsError;
use super::json::{Json, Kind};
use super::xml::{Node, Xml};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::model::scanner::ResultFormat;

/// What a result says of itself. Texts are the file's: whoever shows them neutralises them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// When the scan began, or the result was made, where the file says it.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What the file says of the time that is no moment: without a zone, or none at all.
    pub unclear_time: Option<String>,
    /// The profile that the scanner went by, and its version, where the file names one.
    pub profile: Option<(String, String)>,
    /// What was scanned.
    pub subject: Option<Subject>,
}

/// What was scanned, of which the file says the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An image: the reference by which it was scanned, and the digest of its manifest, where that is said.
    Image(String, Option<Digest>),
    /// What gapscan names so itself: the file came from an export of its own.
    Named(String),
}

impl Origin {
    fn time(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        match moment(text) {
            Some(at) => {
                self.started = Some(self.started.map_or(at, |before| before.min(at)));
                self.finished = Some(self.finished.map_or(at, |before| before.max(at)));
            }
            None => {
                self.unclear_time.get_or_insert_with(|| crate::base::text::brief(text));
            }
        }
    }
}

/// The moment that a text names: RFC 3339, and as Ruby prints times.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", text).ok())
}

/// Reads what a file in this format says of its origin.
///
/// # Errors
/// When it can't be read, or is no document at all.
pub fn origin<C: Content + ?Sized>(format: ResultFormat, content: &C, limits: &Limits) -> Result<Origin, ResultsError> {
    let mut origin = Origin::default();
    let json = || Json::new(content.reader(), format.name(), limits.result_bytes);
    match format {
        ResultFormat::Arf => arf(&mut Xml::new(content.reader(), limits.result_bytes), &mut origin)
            .map_err(|error| error.of(format.name()))?,
        ResultFormat::Junit => junit(&mut Xml::new(content.reader(), limits.result_bytes), &mut origin)
            .map_err(|error| error.of(format.name()))?,
        ResultFormat::Inspec => inspec(&mut json(), &mut origin)?,
        ResultFormat::Grype => grype(&mut json(), &mut origin)?,
        ResultFormat::Syft => syft(&mut json(), &mut origin)?,
        ResultFormat::Trivy => trivy(&mut json(), &mut origin)?,
        ResultFormat::CycloneDx => cyclonedx(&mut json(), &mut origin)?,
        ResultFormat::Spdx => json().object(|json, key| match key {
            "creationInfo" => within(json, |json, key| match key {
                "created" => time(json, &mut origin),
                _ => json.skip(),
            }),
            _ => json.skip(),
        })?,
        ResultFormat::Sarif => sarif(&mut json(), &mut origin)?,
        ResultFormat::Falco => {
            let mut json = json();
            while !json.is_at_end()? {
                within(&mut json, |json, key| match key {
                    "time" => time(json, &mut origin),
                    _ => json.skip(),
                })?;
            }
        }
        // They say nothing of it.
        ResultFormat::KubeBench | ResultFormat::Clair => {}
    }
    Ok(origin)
}

type Read_<T> = Result<T, ResultsError>;

/// An object, where there is one; anything else says nothing.
fn within<R: Read>(json: &mut Json<R>, field: impl FnMut(&mut Json<R>, &str) -> Read_<()>) -> Read_<()> {
    if json.kind()? == Kind::Object { json.object(field) } else { json.skip() }
}

/// A list, where there is one.
fn each<R: Read>(json: &mut Json<R>, item: impl FnMut(&mut Json<R>) -> Read_<()>) -> Read_<()> {
    if json.kind()? == Kind::Array { json.array(item) } else { json.skip() }
}

fn time<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    if let Some(text) = json.scalar()? {
        origin.time(&text);
    }
    Ok(())
}

fn inspec<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    json.object(|json, key| match key {
        "platform" => within(json, |json, key| match key {
            // What gapscan's own export has there.
            "target_id" => json.scalar().map(|text| origin.subject = text.map(Subject::Named)),
            _ => json.skip(),
        }),
        "profiles" => each(json, |json| {
            let (mut name, mut version, mut inner) = (String::new(), String::new(), false);
            within(json, |json, key| match key {
                "name" => json.scalar().map(|text| name = text.unwrap_or_default()),
                "version" => json.scalar().map(|text| version = text.unwrap_or_default()),
                "parent_profile" => json.scalar().map(|text| inner = text.is_some_and(|text| !text.is_empty())),
                "controls" => each(json, |json| {
                    within(json, |json, key| match key {
                        "results" => each(json, |json| {
                            within(json, |json, key| match key {
                                "start_time" => time(json, origin),
                                _ => json.skip(),
                            })
                        }),
                        _ => json.skip(),
                    })
                }),
                _ => json.skip(),
            })?;
            // The outermost one is what was asked for.
            if !inner && !name.is_empty() {
                origin.profile.get_or_insert((name, version));
            }
            Ok(())
        }),
        _ => json.skip(),
    })
}

fn grype<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    json.object(|json, key| match key {
        "source" => image_source(json, origin),
        "descriptor" => within(json, |json, key| match key {
            "timestamp" => time(json, origin),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })
}

fn syft<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    json.object(|json, key| match key {
        "source" => image_source(json, origin),
        _ => json.skip(),
    })
}

/// As Syft and Grype have it: what it is in `target` (up to schema 10 of Syft) or `metadata`.
fn image_source<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    let (mut kind, mut name, mut digest) = (String::new(), None, None);
    within(json, |json, key| match key {
        "type" => json.scalar().map(|text| kind = text.unwrap_or_default()),
        "target" | "metadata" => within(json, |json, key| match key {
            "userInput" => json.scalar().map(|text| name = text),
            "manifestDigest" => json.scalar().map(|text| digest = text.and_then(|text| text.parse().ok())),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    if let ("image", Some(name)) = (kind.as_str(), name) {
        origin.subject = Some(Subject::Image(name, digest));
    }
    Ok(())
}

fn trivy<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    let (mut kind, mut name) = (String::new(), None);
    json.object(|json, key| match key {
        "CreatedAt" => time(json, origin),
        "ArtifactType" => json.scalar().map(|text| kind = text.unwrap_or_default()),
        "ArtifactName" => json.scalar().map(|text| name = text),
        _ => json.skip(),
    })?;
    if let ("container_image", Some(name)) = (kind.as_str(), name) {
        // Its digests are those of whatever repositories the image was pulled from, by whichever index.
        origin.subject = Some(Subject::Image(name, None));
    }
    Ok(())
}

fn cyclonedx<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    json.object(|json, key| match key {
        "metadata" => within(json, |json, key| match key {
            "timestamp" => time(json, origin),
            "component" => {
                let (mut kind, mut name) = (String::new(), None);
                within(json, |json, key| match key {
                    "type" => json.scalar().map(|text| kind = text.unwrap_or_default()),
                    "name" => json.scalar().map(|text| name = text),
                    _ => json.skip(),
                })?;
                if let ("container", Some(name)) = (kind.as_str(), name) {
                    origin.subject = Some(Subject::Image(name, None));
                }
                Ok(())
            }
            _ => json.skip(),
        }),
        _ => json.skip(),
    })
}

fn sarif<R: Read>(json: &mut Json<R>, origin: &mut Origin) -> Read_<()> {
    json.object(|json, key| match key {
        "runs" => each(json, |json| {
            within(json, |json, key| match key {
                "invocations" => each(json, |json| {
                    within(json, |json, key| match key {
                        "startTimeUtc" | "endTimeUtc" => time(json, origin),
                        _ => json.skip(),
                    })
                }),
                _ => json.skip(),
            })
        }),
        _ => json.skip(),
    })
}

fn arf(xml: &mut Xml<impl Read>, origin: &mut Origin) -> Result<(), super::xml::XmlError> {
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("TestResult") => {
                for name in ["start-time", "end-time"] {
                    origin.time(&tag.attribute(name)?.unwrap_or_default());
                }
                let version = tag.attribute("version")?.unwrap_or_default();
                result(xml, version, origin)?;
            }
            Node::End => return Ok(()),
            Node::Open(_) | Node::Text | Node::Close => {}
        }
    }
}

/// Within a `<TestResult>`, up to its end.
fn result(xml: &mut Xml<impl Read>, version: String, origin: &mut Origin) -> Result<(), super::xml::XmlError> {
    loop {
        match xml.next()? {
            Node::Open(tag) => {
                if tag.is("profile")
                    && let Some(id) = tag.attribute("idref")?
                {
                    origin.profile.get_or_insert((id, version.clone()));
                }
                xml.skip()?;
            }
            Node::Text => {}
            Node::Close | Node::End => return Ok(()),
        }
    }
}

fn junit(xml: &mut Xml<impl Read>, origin: &mut Origin) -> Result<(), super::xml::XmlError> {
    loop {
        match xml.next()? {
            Node::Open(tag) if matches!(tag.name(), "testsuite" | "testsuites") => {
                origin.time(&tag.attribute("timestamp")?.unwrap_or_default());
            }
            Node::End => return Ok(()),
            Node::Open(_) | Node::Text | Node::Close => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(format: ResultFormat, text: &str) -> Origin {
        origin(format, text.as_bytes(), &Limits::default()).expect(text)
    }

    #[test]
    fn a_file_says_when_and_of_what_it_is() {
        let read = of(
            ResultFormat::Grype,
            "{\"matches\":[],\"source\":{\"type\":\"image\",\"target\":{\"userInput\":\"a/b:1\",\"manifestDigest\":\"x\"}},\
             \"descriptor\":{\"timestamp\":\"2024-08-29T13:47:41.623667-04:00\"}}",
        );
        assert_eq!(read.subject, Some(Subject::Image("a/b:1".to_owned(), None)), "what is no digest is none");
        assert_eq!(read.finished.expect("a time").to_string(), "2024-08-29T17:47:41.623667Z");
        assert!(of(ResultFormat::Grype, "{\"source\":{\"type\":\"directory\",\"target\":\"/srv\"}}").subject.is_none());

        let read = of(
            ResultFormat::Inspec,
            "{\"platform\":{\"target_id\":\"node/n\"},\"profiles\":[{\"name\":\"in\",\"parent_profile\":\"out\",\
             \"controls\":[{\"results\":[{\"start_time\":\"2017-09-22 14:12:44 -0400\"},{\"start_time\":\"2017-09-22T18:12:50Z\"}]}]},\
             {\"name\":\"out\",\"version\":\"2\"}]}",
        );
        assert_eq!(read.profile, Some(("out".to_owned(), "2".to_owned())));
        assert_eq!(read.subject, Some(Subject::Named("node/n".to_owned())));
        let span = read.started.expect("a begin").duration_until(read.finished.expect("an end"));
        assert_eq!(span.as_secs(), 6);

        let read =
            of(ResultFormat::Trivy, "{\"ArtifactName\":\"a:1\",\"ArtifactType\":\"repository\",\"CreatedAt\":7}");
        assert_eq!((read.subject, read.unclear_time.as_deref()), (None, Some("7")));
        let read =
            of(ResultFormat::Falco, "{\"time\":\"2026-01-01T00:00:00Z\"}\n{\"time\":\"2026-01-02T00:00:00Z\"}\n");
        assert_ne!(read.started, read.finished);
    }

    #[test]
    fn a_time_without_a_zone_is_no_moment() {
        let text = "<TestResult xmlns='http://checklists.nist.gov/xccdf/1.2' start-time='2021-12-17T10:39:29' \
                    end-time='2021-12-17T10:40:58' version='3'><profile idref='p_1'/><target>x</target></TestResult>";
        let read = of(ResultFormat::Arf, text);
        assert_eq!((read.started, read.unclear_time.as_deref()), (None, Some("2021-12-17T10:39:29")));
        assert_eq!(read.profile, Some(("p_1".to_owned(), "3".to_owned())));
        let read = of(ResultFormat::Junit, "<testsuites><testsuite timestamp='2026-01-01T00:00:00Z'/></testsuites>");
        assert!(read.finished.is_some());
    }
}
