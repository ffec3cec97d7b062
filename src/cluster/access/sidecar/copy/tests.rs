use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn making() -> Making<'static> {
    Making {
        agent_image: "r:5000/gapscan@sha256:1",
        life: Some(Duration::from_secs(840)),
        pull: None,
        account: Some("scan"),
    }
}

/// A pod that is within the restricted standard and has nothing to leave out.
fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": "keeper-7", "namespace": "vault", "uid": "u1",
            "labels": { "app": "keeper" }, "annotations": { "a": "b" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "keeper", "uid": "u0", "controller": true }],
        },
        "spec": {
            "nodeName": "node-1", "serviceAccountName": "keeper", "serviceAccount": "keeper", "hostname": "keeper",
            "priorityClassName": "high", "restartPolicy": "Always",
            "tolerations": [{ "operator": "Exists" }], "nodeSelector": { "disk": "fast" },
            "imagePullSecrets": [{ "name": "registry" }],
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 7, "supplementalGroups": [9],
                                 "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app", "image": "r/app:1", "command": ["/app"], "args": ["--listen", "$(PORT)"], "workingDir": "/srv",
                "env": [{ "name": "PORT", "value": "80" }, { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
                "ports": [{ "containerPort": 80, "hostPort": 80 }],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                                     "readOnlyRootFilesystem": true },
            }],
        },
        "status": { "containerStatuses": [{
            "name": "app", "image": "r/app:1", "imageID": format!("r:5000/app@{DIGEST}"), "ready": true, "restartCount": 0,
            "state": { "running": {} }, "user": { "linux": { "uid": 65532, "gid": 65530 } },
        }] },
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

fn copied(change: impl FnOnce(&mut Value)) -> Copy {
    copy(&pod(change), "app", &making()).expect("it can be copied")
}

fn target(copy: &Copy) -> &Value {
    &copy.manifest["spec"]["containers"][0]
}

#[test]
fn a_copy_is_a_pod_that_kubernetes_knows_and_is_the_restricted_standards() {
    let copy = copied(|_| {});
    let manifest =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "copy-0" }, "spec": copy.manifest["spec"] });
    let read: Pod = serde_json::from_value(manifest.clone()).expect("a pod");
    assert_eq!(serde_json::to_value(read).expect("the same")["spec"], manifest["spec"]);
    insta::assert_json_snapshot!(copy.manifest);
}

#[test]
fn a_restricted_container_without_configuration_is_itself_in_its_copy() {
    let copy = copied(|_| {});
    assert_eq!((copy.processes, copy.mounts, copy.sysctls), (Likeness::Same, Likeness::Same, Likeness::Same));
    assert_eq!(copy.notes, [""; 0]);
    assert_eq!(copy.out_of_reach, [""; 0]);
}

#[test]
fn nothing_that_brings_traffic_rights_or_a_place_is_copied() {
    let copy = copied(|_| {});
    assert!(copy.manifest.get("metadata").is_none(), "labels, annotations and owners stay behind");
    let spec = copy.manifest["spec"].as_object().expect("a specification");
    for gone in ["nodeName", "hostname", "priorityClassName", "tolerations", "imagePullSecrets", "serviceAccount"] {
        assert!(!spec.contains_key(gone), "{gone}");
    }
    assert_eq!(spec["serviceAccountName"], "scan");
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
    assert!(target(&copy).get("ports").is_none());
    assert_eq!(target(&copy)["image"], format!("r:5000/app@{DIGEST}"), "what really runs, by digest");
    assert_eq!(target(&copy)["args"], json!(["--listen", "$(PORT)"]));
}

#[test]
fn its_user_and_groups_are_the_originals_in_both_containers() {
    let copy = copied(|_| {});
    let of_pod = &copy.manifest["spec"]["securityContext"];
    assert_eq!((&of_pod["fsGroup"], &of_pod["supplementalGroups"]), (&json!(7), &json!([9])));
    for context in [&target(&copy)["securityContext"], &copy.manifest["spec"]["initContainers"][0]["securityContext"]] {
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(65532), &json!(65530)));
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["runAsNonRoot"], true);
    }
}

#[test]
fn variables_from_secrets_and_config_maps_are_left_out_and_named() {
    let copy = copied(|pod| {
        pod["spec"]["containers"][0]["env"] = json!([
            { "name": "A", "value": "1" },
            { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
            { "name": "LEVEL", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            { "name": "HIS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "containerName": "other" } } },
        ]);
        pod["spec"]["containers"][0]["envFrom"] =
            json!([{ "secretRef": { "name": "all" } }, { "configMapRef": { "name": "map" } }]);
    });
    let kept: Vec<&str> =
        target(&copy)["env"].as_array().expect("variables").iter().filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(kept, ["A", "CPU"]);
    assert!(target(&copy).get("envFrom").is_none());
    let said = copy.notes.join("\n");
    for word in ["`PASSWORD` from a secret", "`LEVEL` from a config map", "`HIS`", "secret `all`", "config map `map`"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(copy.processes, Likeness::Different);
}

#[test]
fn no_word_of_a_secret_is_in_a_copy() {
    let copy = copied(|pod| {
        pod["spec"]["containers"][0]["env"] =
            json!([{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "s3cr3t", "key": "k" } } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "keys", "mountPath": "/keys" }]);
        pod["spec"]["volumes"] = json!([{ "name": "keys", "secret": { "secretName": "s3cr3t" } }]);
    });
    assert!(!copy.manifest.to_string().contains("s3cr3t"));
}

#[test]
fn every_volume_is_empty_in_a_copy_and_its_place_out_of_reach() {
    let sources = [
        ("secret", json!({ "secretName": "s" })),
        ("configMap", json!({ "name": "c" })),
        ("persistentVolumeClaim", json!({ "claimName": "p" })),
        ("hostPath", json!({ "path": "/" })),
        ("emptyDir", json!({})),
        ("projected", json!({ "sources": [] })),
        ("nfs", json!({ "server": "s", "path": "/" })),
        ("csi", json!({ "driver": "d" })),
        ("ephemeral", json!({})),
        ("image", json!({ "reference": "r/i:1" })),
    ];
    for (source, value) in sources {
        let copy = copied(|pod| {
            pod["spec"]["volumes"] =
                json!([{ "name": "v", source: value }, { "name": "unused", "hostPath": { "path": "/" } }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([
                { "name": "v", "mountPath": "/data", "readOnly": true, "mountPropagation": "HostToContainer" },
                { "name": "v", "mountPath": "/again" },
            ]);
        });
        let volumes = copy.manifest["spec"]["volumes"].as_array().expect("volumes");
        assert_eq!(volumes.len(), 2, "{source}: {volumes:?}");
        assert!(
            volumes.iter().all(|volume| volume
                .as_object()
                .expect("a volume")
                .keys()
                .all(|k| k == "name" || k == "emptyDir"))
        );
        let mounts =
            json!([{ "name": "v", "mountPath": "/data", "readOnly": true }, { "name": "v", "mountPath": "/again" }]);
        assert_eq!(target(&copy)["volumeMounts"], mounts, "{source}");
        assert_eq!(copy.out_of_reach, ["/data", "/again"]);
        assert_eq!((copy.mounts, copy.processes), (Likeness::Different, Likeness::Different), "{source}");
        assert!(copy.notes.join("\n").contains("`/data`"), "{source}");
    }
}

#[test]
fn what_may_be_a_file_is_not_stood_for_by_an_empty_folder() {
    let copy = copied(|pod| {
        pod["spec"]["volumes"] = json!([{ "name": "c", "configMap": { "name": "c" } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([
            { "name": "c", "mountPath": "/etc/app.conf", "subPath": "app.conf" },
            { "name": "c", "mountPath": "/etc/other", "subPathExpr": "$(POD)" },
        ]);
        pod["spec"]["containers"][0]["volumeDevices"] = json!([{ "name": "disk", "devicePath": "/dev/xvda" }]);
    });
    assert!(target(&copy).get("volumeMounts").is_none());
    assert!(target(&copy).get("volumeDevices").is_none());
    assert_eq!(copy.out_of_reach, ["/etc/app.conf", "/etc/other", "/dev/xvda"]);
    assert!(
        copy.notes.join("\n").contains("not mounted in the copy: `/etc/app.conf` (a config map)"),
        "{:?}",
        copy.notes
    );
}

#[test]
fn the_token_that_kubernetes_mounts_is_not_copied() {
    let copy = copied(|pod| {
        pod["spec"]["volumes"] = json!([{ "name": "kube-api-access-x", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }]);
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{ "name": "kube-api-access-x", "mountPath": TOKEN, "readOnly": true }]);
    });
    assert!(target(&copy).get("volumeMounts").is_none());
    assert_eq!(copy.notes, ["the copy has no service account and no token"]);
    assert_eq!(copy.mounts, Likeness::Different);
}

#[test]
fn what_the_restricted_standard_adds_is_told_and_nothing_is_judged_by_it() {
    let copy = copied(|pod| {
        pod["spec"]["securityContext"] = json!({});
        pod["spec"]["containers"][0]["securityContext"] = json!({ "capabilities": { "add": ["NET_BIND_SERVICE"] } });
    });
    let context = &target(&copy)["securityContext"];
    assert_eq!(context["seccompProfile"], json!({ "type": "RuntimeDefault" }));
    assert!(context.get("readOnlyRootFilesystem").is_none(), "a program may write to its root, as it does");
    assert_eq!(copy.processes, Likeness::Different);
    let said = &copy.notes[0];
    for word in ["can't gain privileges", "no capabilities", "seccomp"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn other_containers_probes_and_hooks_stay_behind_and_are_named() {
    let copy = copied(|pod| {
        pod["spec"]["initContainers"] = json!([{ "name": "setup", "image": "r/s" }]);
        pod["spec"]["containers"].as_array_mut().expect("a list").push(json!({ "name": "proxy", "image": "r/p" }));
        pod["spec"]["containers"][0]["livenessProbe"] = json!({ "exec": { "command": ["x"] } });
        pod["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": { "exec": { "command": ["x"] } } });
    });
    assert_eq!(copy.manifest["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!(copy.manifest["spec"]["initContainers"].as_array().map(Vec::len), Some(1));
    let said = copy.notes.join("\n");
    for word in ["`setup` prepared", "`proxy`", "not probed", "lifecycle"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(target(&copy).get("livenessProbe").is_none() && target(&copy).get("lifecycle").is_none());
}

#[test]
fn a_sidecar_of_the_pod_is_copied_as_a_container_of_its_own() {
    let pod = pod(|pod| {
        let app = pod["spec"]["containers"][0].clone();
        pod["spec"]["containers"][0]["name"] = json!("main");
        pod["spec"]["initContainers"] = json!([app]);
        pod["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
        pod["status"]["initContainerStatuses"] = pod["status"]["containerStatuses"].clone();
        pod["status"]["containerStatuses"] = json!([]);
    });
    let copy = copy(&pod, "app", &making()).expect("it can be copied");
    assert!(target(&copy).get("restartPolicy").is_none());
}

#[test]
fn devices_are_left_out_limits_kept_and_little_is_asked_for() {
    let copy = copied(|pod| {
        pod["spec"]["containers"][0]["resources"] = json!({
            "limits": { "memory": "3Gi", "nvidia.com/gpu": "1" }, "requests": { "memory": "3Gi", "cpu": "2" },
            "claims": [{ "name": "gpu" }],
        });
    });
    let resources = &target(&copy)["resources"];
    assert_eq!(resources["limits"], json!({ "cpu": "1", "memory": "3Gi" }));
    assert_eq!(resources["requests"], json!({ "cpu": "10m", "memory": "16Mi" }));
    assert!(resources.get("claims").is_none());
    assert!(copy.notes[0].contains("nvidia.com/gpu"), "{:?}", copy.notes);
}

#[test]
fn kernel_parameters_of_the_pod_are_not_the_copys() {
    let copy = copied(|pod| {
        pod["spec"]["securityContext"]["sysctls"] = json!([{ "name": "net.core.somaxconn", "value": "9" }])
    });
    assert!(copy.manifest["spec"]["securityContext"].get("sysctls").is_none());
    assert_eq!((copy.sysctls, copy.processes), (Likeness::Different, Likeness::Same));
}

#[test]
fn each_obstacle_to_an_honest_copy_is_seen_and_named() {
    type Change<'a> = &'a dyn Fn(&mut Value);
    let user = |pod: &mut Value, uid: i64| {
        pod["status"]["containerStatuses"][0]["user"] = json!({ "linux": { "uid": uid, "gid": 0 } })
    };
    let context = |pod: &mut Value, context: Value| pod["spec"]["containers"][0]["securityContext"] = context;
    let cases: [(&str, Change); 14] = [
        ("Windows", &|pod| pod["spec"]["os"] = json!({ "name": "windows" })),
        ("static", &|pod| pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" })),
        ("network", &|pod| pod["spec"]["hostNetwork"] = json!(true)),
        ("processes", &|pod| pod["spec"]["hostPID"] = json!(true)),
        ("memory", &|pod| pod["spec"]["hostIPC"] = json!(true)),
        ("privileged", &|pod| context(pod, json!({ "privileged": true }))),
        ("SYS_ADMIN", &|pod| context(pod, json!({ "capabilities": { "add": ["NET_BIND_SERVICE", "SYS_ADMIN"] } }))),
        ("as root", &|pod| user(pod, 0)),
        ("which user", &|pod| pod["status"]["containerStatuses"][0]["user"] = json!(null)),
        ("/proc", &|pod| context(pod, json!({ "procMount": "Unmasked" }))),
        ("seccomp", &|pod| context(pod, json!({ "seccompProfile": { "type": "Unconfined" } }))),
        ("seccomp", &|pod| pod["spec"]["securityContext"]["seccompProfile"]["type"] = json!("Unconfined")),
        ("AppArmor", &|pod| context(pod, json!({ "appArmorProfile": { "type": "Unconfined" } }))),
        ("no name", &|pod| pod["status"]["containerStatuses"][0]["imageID"] = json!(DIGEST)),
    ];
    for (sign, change) in cases {
        let pod = pod(change);
        let why = copy(&pod, "app", &making()).expect_err(sign);
        assert!(why.contains(sign), "{sign}: {why}");
        let facts = ContainerFacts::of(&pod, "app").expect("it has the container");
        assert_eq!(facts.uncopyable.as_deref(), Some(why.as_str()), "what is chosen by and what is made agree");
    }
    let ephemeral = pod(|pod| pod["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "r/d" }]));
    assert!(copy(&ephemeral, "debug", &making()).expect_err("it is none").contains("ephemeral"));
    assert!(copy(&ephemeral, "none", &making()).is_err());
}

#[test]
fn a_copy_that_is_written_out_for_somebody_has_no_end_and_no_account_of_a_run() {
    let making = Making { life: None, account: None, ..making() };
    let copy = copy(&pod(|_| {}), "app", &making).expect("it can be copied");
    let spec = copy.manifest["spec"].as_object().expect("a specification");
    assert!(!spec.contains_key("activeDeadlineSeconds") && !spec.contains_key("serviceAccountName"));
    assert_eq!(spec["automountServiceAccountToken"], false);
}

#[test]
fn credentials_for_pulling_are_named_only_where_there_are_some() {
    assert!(copied(|_| {}).manifest["spec"].get("imagePullSecrets").is_none());
    let copy = copy(&pod(|_| {}), "app", &Making { pull: Some("pull-3"), ..making() }).expect("it can be copied");
    assert_eq!(copy.manifest["spec"]["imagePullSecrets"], json!([{ "name": "pull-3" }]));
}
