# Ends the tests' PostgreSQL cluster when no test has used it for a while. Started beside the cluster, ends with it.
# usage: sh watchdog.sh <folder> <seconds>
folder=$1
limit=$2
read -r pid <"$folder/cluster/postmaster.pid" || exit 0
idle=0
while kill -0 "$pid" 2>/dev/null; do
    sleep 3
    # Every process that uses the cluster holds a shared lock on this file.
    if ! flock --exclusive --nonblock "$folder/users.lock" true; then
        idle=0
        continue
    fi
    idle=$((idle + 3))
    [ "$idle" -ge "$limit" ] || continue
    # Nobody can begin to use the cluster while `start.lock` is held, so look once more under it.
    exec 9>"$folder/start.lock"
    flock --exclusive 9
    if flock --exclusive --nonblock "$folder/users.lock" true; then
        kill -INT "$pid" 2>/dev/null
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    fi
    exec 9>&-
    idle=0
done
