package stub

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"hythe.dev/hythe/api/v1alpha1"
)

// A Server is such an API server. It is an http.Handler.
type Server struct {
	protobuf, json encoding
	kinds          []*collection
}

// A collection is what is there of one kind.
type collection struct {
	Kind
	protobuf, json encoding

	mu      sync.Mutex
	version int               // of the last change that was prepared
	sent    int               // of the last one that was sent: that of lists
	objects map[string]Object // by namespace/name
	events  []event           // all there were since the first list
	more    chan struct{}     // closed when there are more events
	listed  [2]*listed        // by encoding, nil if out of date
}

// An event is one of a watch, in both encodings.
type event struct {
	version        int
	protobuf, json []byte
}

// A listed is all objects at one version, as a list and as the events of a watch.
type listed struct {
	version      int
	list, events []byte
}

// New makes a server of nothing.
func New() (*Server, error) {
	s := &Server{}
	var err error
	if s.protobuf, s.json, err = encodings(); err != nil {
		return nil, err
	}
	for _, k := range Kinds() {
		s.kinds = append(s.kinds, &collection{Kind: k, protobuf: s.protobuf, json: s.json, version: 1, sent: 1, objects: map[string]Object{}, more: make(chan struct{})})
	}
	return s, nil
}

// of returns the collection of an object's type.
func (s *Server) of(o Object) *collection {
	for _, c := range s.kinds {
		if fmt.Sprintf("%T", c.New()) == fmt.Sprintf("%T", o) {
			return c
		}
	}
	return nil
}

func name(o Object) string { return o.GetNamespace() + "/" + o.GetName() }

// Fill puts objects in before anybody watches: nobody is told of them.
func (s *Server) Fill(objects ...Object) {
	for _, o := range objects {
		c := s.of(o)
		c.mu.Lock()
		c.version++
		c.sent = c.version
		c.stamp(o)
		c.objects[name(o)], c.listed = o, [2]*listed{}
		c.mu.Unlock()
	}
}

// stamp gives an object the collection's version, and its kind. It is called with mu held.
func (c *collection) stamp(o Object) {
	o.SetResourceVersion(strconv.Itoa(c.version))
	o.GetObjectKind().SetGroupVersionKind(c.GVK)
}

// A Prepared is a change that is encoded already.
type Prepared struct {
	c      *collection
	object Object
	delete bool
	event  event
}

// Put prepares that an object is there, or is as given. Prepared changes of a kind must be sent in their order.
func (s *Server) Put(o Object) (Prepared, error) { return s.prepare(o, false) }

// Delete prepares that an object goes.
func (s *Server) Delete(o Object) (Prepared, error) { return s.prepare(o, true) }

func (s *Server) prepare(o Object, gone bool) (Prepared, error) {
	c := s.of(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.stamp(o)
	kind := watch.Modified
	if gone {
		kind = watch.Deleted
	} else if c.objects[name(o)] == nil {
		kind = watch.Added
	}
	p := Prepared{c: c, object: o, delete: gone, event: event{version: c.version}}
	var err error
	if !c.custom() {
		if p.event.protobuf, err = c.protobuf.event(kind, o); err != nil {
			return p, err
		}
	}
	p.event.json, err = c.json.event(kind, o)
	return p, err
}

// Send sends a prepared change to all who watch.
func (p Prepared) Send() {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.delete {
		delete(c.objects, name(p.object))
	} else {
		c.objects[name(p.object)] = p.object
	}
	c.listed, c.sent = [2]*listed{}, p.event.version
	c.events = append(c.events, p.event)
	close(c.more)
	c.more = make(chan struct{})
}

// Warm encodes what lists and first events of watches consist of, so that nobody waits for it.
func (s *Server) Warm() error {
	for _, c := range s.kinds {
		c.mu.Lock()
		_, err := c.all(c.first())
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// first is the encoding that most clients ask for.
func (c *collection) first() int {
	if c.custom() {
		return 1
	}
	return 0
}

// custom says whether the kind is one of custom resources, which the API serves as JSON.
func (c *collection) custom() bool { return c.GVK.GroupVersion() == v1alpha1.GroupVersion }

// all returns all objects in an encoding: 0 is protobuf and 1 is JSON. It is called with mu held.
func (c *collection) all(which int) (*listed, error) {
	if c.listed[which] != nil {
		return c.listed[which], nil
	}
	e := []encoding{c.protobuf, c.json}[which]
	l := &listed{version: c.sent}
	var objects []Object
	for _, key := range slices.Sorted(maps.Keys(c.objects)) {
		o := c.objects[key]
		data, err := e.event(watch.Added, o)
		if err != nil {
			return nil, err
		}
		objects, l.events = append(objects, o), append(l.events, data...)
	}
	end := c.New()
	c.stamp(end)
	end.SetResourceVersion(strconv.Itoa(c.sent))
	end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	data, err := e.event(watch.Bookmark, end)
	if err != nil {
		return nil, err
	}
	l.events = append(l.events, data...)
	list := c.List(metav1.ListMeta{ResourceVersion: strconv.Itoa(c.sent)}, objects)
	list.GetObjectKind().SetGroupVersionKind(c.listKind())
	if l.list, err = e.object(list); err != nil {
		return nil, err
	}
	c.listed[which] = l
	return l, nil
}

func (c *collection) listKind() schema.GroupVersionKind {
	gvk := c.GVK
	gvk.Kind += "List"
	return gvk
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, io.LimitReader(r.Body, 1<<20))
		return
	}
	for _, c := range s.kinds {
		rest, ok := strings.CutPrefix(r.URL.Path, c.Path)
		if !ok {
			continue
		}
		which, e := 1, s.json
		if strings.Contains(r.Header.Get("Accept"), s.protobuf.name) && !c.custom() {
			which, e = 0, s.protobuf
		}
		var err error
		switch {
		case rest != "":
			err = c.one(w, e, strings.TrimPrefix(rest, "/"))
		case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
			err = c.watch(r.Context(), w, e, which, r)
		default:
			err = c.list(w, e, which, r)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		return
	}
	http.NotFound(w, r)
}

// one sends the object of a kind without namespaces.
func (c *collection) one(w http.ResponseWriter, e encoding, named string) error {
	c.mu.Lock()
	o := c.objects["/"+named]
	c.mu.Unlock()
	if o == nil {
		status := &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound}
		return send(w, e, http.StatusNotFound, status)
	}
	return send(w, e, http.StatusOK, o.DeepCopyObject().(Object))
}

func (c *collection) list(w http.ResponseWriter, e encoding, which int, r *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Query().Get("limit") == "1" { // asked for its version alone
		list := c.List(metav1.ListMeta{ResourceVersion: strconv.Itoa(c.sent)}, nil)
		list.GetObjectKind().SetGroupVersionKind(c.listKind())
		data, err := e.object(list)
		return write(w, e.name, data, err)
	}
	all, err := c.all(which)
	if err != nil {
		return err
	}
	return write(w, e.name, all.list, nil)
}

func write(w http.ResponseWriter, mediaType string, data []byte, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(data)
	return nil
}

// watch sends events until the client goes.
func (c *collection) watch(ctx context.Context, w http.ResponseWriter, e encoding, which int, r *http.Request) error {
	w.Header().Set("Content-Type", e.stream)
	control := http.NewResponseController(w)
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		c.mu.Lock()
		all, err := c.all(which)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if _, err := w.Write(all.events); err != nil {
			return nil //nolint:nilerr // the client went
		}
		from = all.version
	}
	_ = control.Flush()
	for next := 0; ; {
		c.mu.Lock()
		events, more := c.events[min(next, len(c.events)):], c.more
		c.mu.Unlock()
		next += len(events)
		for _, ev := range events {
			if ev.version <= from {
				continue
			}
			data := ev.protobuf
			if which == 1 {
				data = ev.json
			}
			if _, err := w.Write(data); err != nil {
				return nil //nolint:nilerr // the client went
			}
		}
		if len(events) > 0 && control.Flush() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

func send(w http.ResponseWriter, e encoding, code int, object runtime.Object) error {
	data, err := e.object(object)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", e.name)
	w.WriteHeader(code)
	_, _ = w.Write(data)
	return nil
}
