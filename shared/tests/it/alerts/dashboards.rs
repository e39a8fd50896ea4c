//! The dashboards of deploy/grafana: panels that a person understands at once, about metrics that exist.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{SECTIONS, anchor, repository, unknown_to_the_programs};

/// Name of the file and content.
fn dashboards() -> Vec<(String, Value)> {
    let folder = repository().join("deploy/grafana/dashboards");
    let files = std::fs::read_dir(folder).expect("the dashboards");
    let read = files.map(|file| {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let name = path.file_stem().expect("a name").to_string_lossy();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name.into_owned(), json)
    });
    let dashboards: Vec<_> = read.collect();
    assert_eq!(dashboards.len(), 5);
    dashboards
}

/// Where it is, and the panel.
fn panels() -> Vec<(String, Value)> {
    let mut panels = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in list(&dashboard["panels"]) {
            let place = format!("{file}, {}", panel["title"].as_str().unwrap_or("no title"));
            panels.push((place, panel.clone()));
        }
    }
    panels
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A provisioned dashboard is found again by its uid. Grafana gives the numbers itself.
#[test]
fn every_dashboard_has_its_file_name_as_uid_and_no_numbers() {
    for (file, dashboard) in dashboards() {
        assert_eq!(text(&dashboard["uid"]), file);
        assert!(text(&dashboard["description"]).len() > 20, "{file}");
        assert!(!dashboard.to_string().contains("\"id\":"), "{file}");
        let links = &dashboard["links"][0]["tags"];
        assert_eq!(*links, dashboard["tags"], "{file} leads to the others");
    }
}

#[test]
fn every_panel_has_a_title_a_description_a_unit_and_the_chosen_data_source() {
    let mut titles = BTreeSet::new();
    for (place, panel) in panels() {
        assert!(titles.insert(place.clone()), "{place} twice");
        let description = text(&panel["description"]);
        assert!(
            description.len() > 20 && description.ends_with('.'),
            "{place}"
        );
        let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
        assert!(!unit.is_empty(), "{place}: no unit");
        assert_eq!(
            text(&panel["datasource"]["uid"]),
            "${datasource}",
            "{place}"
        );
        assert!(!list(&panel["targets"]).is_empty(), "{place}: no query");
    }
}

#[test]
fn every_link_of_a_panel_leads_to_the_section_of_an_alert() {
    let headings = SECTIONS.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: BTreeSet<String> = headings.map(anchor).collect();
    for (place, panel) in panels() {
        for link in list(&panel["links"]) {
            let section = text(&link["url"]).strip_prefix("${docs:raw}/ALERTS.md#");
            assert!(
                section.is_some_and(|it| anchors.contains(it)),
                "{place}: {link}"
            );
            assert_eq!(
                section,
                Some(anchor(text(&link["title"])).as_str()),
                "{place}"
            );
        }
    }
}

#[test]
fn every_metric_and_label_of_a_panel_exists() {
    let mut wrong = Vec::new();
    for (place, panel) in panels() {
        for query in list(&panel["targets"]) {
            let problems = unknown_to_the_programs(text(&query["expr"]));
            wrong.extend(problems.iter().map(|it| format!("{place}: {it}")));
        }
    }
    assert_eq!(wrong, [""; 0]);
}
