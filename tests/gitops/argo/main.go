// Syncs manifests as Argo CD does for one Application: the same engine, with the pause between waves that Argo CD's
// controller makes.
//
//	argo -name NAME -namespace NAMESPACE [-server-side] [-prune] <MANIFESTS
//
// Ends with 1 when Argo CD would say that the sync failed; what it would say of each resource is printed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/argoproj/gitops-engine/pkg/cache"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// By which Argo CD knows what belongs to an Application.
const tracking = "argocd.argoproj.io/tracking-id"

// ARGOCD_SYNC_WAVE_DELAY, unless set.
const betweenWaves = 2 * time.Second

// How long a sync may take.
const limit = time.Minute

func main() {
	klog.SetLogger(logr.Discard())
	if err := reconcile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func reconcile() error {
	name := flag.String("name", "", "name of the Application")
	namespace := flag.String("namespace", "", "namespace of what it deploys")
	serverSide := flag.Bool("server-side", false, "as syncOptions: [ServerSideApply=true]")
	prune := flag.Bool("prune", false, "as syncPolicy.automated.prune")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects, err := kube.SplitYAML(manifests)
	if err != nil {
		return err
	}
	id := func(group, kind, object string) string {
		return fmt.Sprintf("%s:%s/%s:%s/%s", *name, group, kind, *namespace, object)
	}
	for _, object := range objects {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		kind := object.GroupVersionKind()
		annotations[tracking] = id(kind.Group, kind.Kind, object.GetName())
		object.SetAnnotations(annotations)
	}

	cluster := cache.NewClusterCache(config,
		cache.SetNamespaces([]string{*namespace}),
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			tracked := object.GetAnnotations()[tracking]
			return tracked, tracked != ""
		}),
	)
	if err := cluster.EnsureSynced(); err != nil {
		return err
	}
	isManaged := func(resource *cache.Resource) bool {
		key := resource.ResourceKey()
		return resource.Info == id(key.Group, key.Kind, key.Name)
	}
	pause := func(_ common.SyncPhase, _ int, final bool) error {
		if !final {
			time.Sleep(betweenWaves)
		}
		return nil
	}
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	options := []sync.SyncOpt{
		sync.WithPrune(*prune), sync.WithServerSideApply(*serverSide), sync.WithServerSideApplyManager("argocd-controller"),
		sync.WithSyncWaveHook(pause), sync.WithLogr(logr.Discard()),
	}
	started := metav1.Now()
	for time.Since(started.Time) < limit {
		// As Argo CD's controller: each round looks at what is live, and goes on from what the one before came to.
		live, err := cluster.GetManagedLiveObjs(objects, isManaged)
		if err != nil {
			return err
		}
		compared := sync.Reconcile(objects, live, *namespace, cluster)
		round, cleanup, err := sync.NewSyncContext("main", compared, config, config, kubectl, *namespace,
			cluster.GetOpenAPISchema(), options...)
		if err != nil {
			return err
		}
		round.Sync()
		phase, message, results := round.GetState()
		cleanup()
		if phase.Completed() {
			for _, result := range results {
				key := result.ResourceKey
				fmt.Printf("%s %s %s: %s\n", key.Kind, key.Name, result.Status, result.Message)
			}
			if !phase.Successful() {
				return errors.New(message)
			}
			return nil
		}
		options = append(options, sync.WithInitialState(phase, message, results, started))
		time.Sleep(200 * time.Millisecond)
	}
	return errors.New("the sync did not end")
}
