# shellcheck shell=bash
# Sourced by `stack`: a single-node Kafka for one instance, in "$instance_dir/kafka".
# The broker's jars come from KAFKA_HOME if set, else from Maven into STACK_DIR.

KAFKA_START_SECS=120
# Kafka 4 brokers do not start on an older one.
KAFKA_MINIMUM_JAVA=17
# Any 16 bytes in URL-safe Base64; the same for all local instances, which never connect to each other.
KAFKA_CLUSTER_ID=cmV0dXJucy1sb2NhbC1zdA

kafka_paths() {
    kafka_dir=$instance_dir/kafka
    kafka_log=$kafka_dir/kafka.log kafka_pid_file=$kafka_dir/pid
    kafka_needle=$kafka_dir/server.properties
    kafka_sources=$here/kafka
}

kafka_brokers() { echo "127.0.0.1:$(read_file "$kafka_dir/port")"; }
kafka_running() { running_pid "$kafka_pid_file" "$kafka_needle"; }

kafka_how_to_get_it() {
    die kafka "$1
       One of these is needed:
         - KAFKA_BROKERS=HOST:PORT,... of a running Kafka, or
         - Java >= $KAFKA_MINIMUM_JAVA (Debian: openjdk-17-jre-headless) and KAFKA_HOME=folder of an unpacked Kafka 4, or
         - Java >= $KAFKA_MINIMUM_JAVA and Maven (Debian: maven) that reaches its repository."
}

# Set java=() to the virtual machine with this project's options.
kafka_java() {
    local program=java version
    [[ -n ${JAVA_HOME:-} ]] && program=$JAVA_HOME/bin/java
    command -v "$program" >/dev/null || kafka_how_to_get_it "$program is missing."
    version=$("$program" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
    ((${version:-0} >= KAFKA_MINIMUM_JAVA)) || kafka_how_to_get_it "$program is version ${version:-unknown}: too old."
    # One core's worth of garbage collection and a small heap: a developer's machine runs much else.
    java=("$program" -Xms256m -Xmx512m -XX:+UseSerialGC
        "-Dlog4j2.configurationFile=$kafka_sources/log4j2.properties" -cp "$kafka_libs/*")
}

# Set kafka_libs to the folder of jars, downloading them if need be.
kafka_software() {
    local version
    if [[ -n ${KAFKA_HOME:-} ]]; then
        kafka_libs=$KAFKA_HOME/libs
        compgen -G "$kafka_libs/kafka_2*.jar" >/dev/null || die kafka "KAFKA_HOME=$KAFKA_HOME has no libs/kafka_2*.jar"
        kafka_java
        return 0
    fi
    version=$(sed -nE 's#.*<kafka.version>(.*)</kafka.version>.*#\1#p' "$kafka_sources/pom.xml")
    kafka_libs=$STACK_DIR/kafka-$version/libs
    # Check before the download of 43 MB, not after it.
    kafka_java
    [[ -d $kafka_libs ]] && return 0
    download_lock "$STACK_DIR/kafka.lock"
    [[ -d $kafka_libs ]] || kafka_download "$version"
    download_unlock
}

# Downloads into a scratch folder that is renamed at the end: an interrupted download is never used.
kafka_download() {
    local start scratch jars
    command -v mvn >/dev/null || kafka_how_to_get_it "no Kafka here, and no mvn to get one with."
    # Remove what an interrupted download left. We have the lock, so no other process uses it.
    rm -rf "$STACK_DIR"/kafka-"$1".??????
    start=$(now_ds)
    scratch=$(mktemp -d "$STACK_DIR/kafka-$1.XXXXXX")
    say kafka "downloading Kafka $1 with Maven (about 46 jars, 43 MB)"
    # A copy, so that Maven writes nothing beside the original.
    cp "$kafka_sources/pom.xml" "$scratch/pom.xml"
    if ! mvn --batch-mode --quiet --file "$scratch/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$scratch/libs" </dev/null >"$scratch/log" 2>&1; then
        tail -n 20 "$scratch/log" >&2
        rm -rf "$scratch"
        kafka_how_to_get_it "Maven could not download Kafka (its messages are above)."
    fi
    jars=("$scratch"/libs/*.jar)
    say kafka "downloaded ${#jars[@]} jars ($(megabytes "$scratch/libs") MB) in $(elapsed "$start")"
    # mktemp made it private; another user of the same STACK_DIR may read jars.
    chmod 755 "$scratch"
    mv "$scratch" "$STACK_DIR/kafka-$1"
}

kafka_configure() {
    sed -e "s#@PORT@#$1#g" -e "s#@CONTROLLER_PORT@#$2#g" -e "s#@DATA@#$kafka_dir/data#g" \
        "$kafka_sources/server.properties" >"$kafka_dir/server.properties"
}

kafka_format() {
    local start
    [[ -e $kafka_dir/data/meta.properties ]] && return 0
    start=$(now_ds)
    if ! "${java[@]}" kafka.tools.StorageTool format --cluster-id "$KAFKA_CLUSTER_ID" \
        --config "$kafka_dir/server.properties" </dev/null >"$kafka_dir/format.log" 2>&1; then
        tail -n 20 "$kafka_dir/format.log" >&2
        die kafka "could not format its data folder; the end of $kafka_dir/format.log is above"
    fi
    say kafka "formatted in $(elapsed "$start")"
}

# The broker logs this line once it serves requests. Each start begins a new log.
kafka_is_ready() { grep -q 'Kafka Server started' "$kafka_log"; }

# Returns 1 if the broker exited; it exits when it cannot bind.
kafka_launch() {
    launch "$kafka_pid_file" "$kafka_log" "${java[@]}" kafka.Kafka "$kafka_needle"
    wait_ready kafka "$KAFKA_START_SECS" "$kafka_pid_file" "$kafka_needle" "$kafka_log" kafka_is_ready
}

kafka_up() {
    local start attempt port='' controller_port=''
    if kafka_running >/dev/null; then
        say kafka "already running, port $(read_file "$kafka_dir/port"), pid $(kafka_running)"
        return 0
    fi
    kafka_software
    mkdir -p "$kafka_dir"
    for attempt in 1 2 3; do
        start=$(now_ds)
        # The second and third attempt take another port: the first one may have been lost in a race.
        ((attempt > 1)) || port=$(read_file "$kafka_dir/port")
        ((attempt == 1)) || port=
        port=$(pick_port "$port")
        controller_port=$(pick_port)
        while [[ $controller_port == "$port" ]]; do controller_port=$(pick_port); done
        echo "$port" >"$kafka_dir/port"
        kafka_configure "$port" "$controller_port"
        kafka_format
        if kafka_launch; then
            say kafka "started in $(elapsed "$start"), port $port, pid $(kafka_running)"
            return 0
        fi
        grep -q 'Address already in use' "$kafka_log" || break
        say kafka "port $port or $controller_port was taken in the meantime: trying others"
    done
    tail -n 20 "$kafka_log" >&2
    die kafka "did not start; the end of $kafka_log is above"
}

# Start again after a stop or kill, on the same ports and data: clients keep their KAFKA_BROKERS.
kafka_start_again() {
    local start
    [[ -e $kafka_needle && -e $kafka_dir/data/meta.properties ]] || die kafka "this instance was never up"
    if kafka_running >/dev/null; then say kafka "already running, pid $(kafka_running)"; return 0; fi
    kafka_software
    start=$(now_ds)
    if ! kafka_launch; then
        tail -n 20 "$kafka_log" >&2
        die kafka "did not start again; the end of $kafka_log is above"
    fi
    say kafka "started again in $(elapsed "$start"), port $(read_file "$kafka_dir/port"), pid $(kafka_running)"
}

kafka_stop() { stop_process kafka "$kafka_pid_file" "$kafka_needle" "${1:-TERM}"; }
