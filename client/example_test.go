//go:build linux

package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
)

// startDaemon runs a daemon for an example, as `v6d serve --size 16MiB` does.
// Programs find a daemon that runs already with client.Options{}.
func startDaemon() (socket, endpoint string, stop func()) {
	dir, err := os.MkdirTemp("", "v6d")
	if err != nil {
		log.Fatal(err)
	}
	cfg := config.Default()
	cfg.Socket, cfg.Size, cfg.Memory = filepath.Join(dir, "v6d.sock"), "16MiB", "anonymous"
	cfg.RPCListen = "127.0.0.1:0"
	srv, err := server.New(context.Background(), server.Options{Config: cfg})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- srv.Run(ctx, func() { close(ready) }) }()
	<-ready
	return cfg.Socket, srv.Report().RPC, func() {
		cancel()
		if err := errors.Join(<-done, os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// Bytes go into shared memory once; every process of the machine reads them
// there.
func Example() {
	socket, _, stop := startDaemon()
	defer stop()
	ctx := context.Background()

	writer, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer writer.Close()
	w, err := writer.CreateBlob(ctx, 13)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort(ctx) // does nothing after Seal
	copy(w.Bytes(), "Hello, world!")
	id, err := w.Seal(ctx)
	if err != nil {
		log.Fatal(err)
	}

	reader, err := client.Dial(ctx, client.Options{Socket: socket}) // another process, as a rule
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()
	blob, err := reader.GetBlob(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", blob.Bytes()) // the pool's own memory: until Release
	if err := blob.Release(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: Hello, world!
}

// An object is metadata over blobs. Persisted, it can have a name, by which
// others find it.
func ExampleClient_CreateObject() {
	socket, _, stop := startDaemon()
	defer stop()
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	blob, err := c.PutBlob(ctx, []byte{1, 2, 3, 4, 5, 6})
	if err != nil {
		log.Fatal(err)
	}
	m := client.NewMeta("vineyard::Tensor<uint8>").
		Set("value_type_", "uint8").
		Set("shape_", []int{2, 3}). // JSON text in a string
		Add("buffer_", client.BlobMember(blob))
	id, err := c.CreateObject(ctx, m)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Persist(ctx, id); err != nil {
		log.Fatal(err)
	}
	if err := c.PutName(ctx, id, "numbers"); err != nil {
		log.Fatal(err)
	}

	found, err := c.GetName(ctx, "numbers", false)
	if err != nil {
		log.Fatal(err)
	}
	got, err := c.GetObject(ctx, found)
	if err != nil {
		log.Fatal(err)
	}
	var shape []int
	if err := got.JSON("shape_", &shape); err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Typename, shape, got.Member("buffer_").ID == blob)
	_, err = c.GetName(ctx, "letters", false)
	fmt.Println("letters:", errors.Is(err, client.NotExist))
	// Output:
	// vineyard::Tensor<uint8> [2 3] true
	// letters: true
}

// Over TCP the same calls copy the bytes through the connection.
func ExampleDial_remote() {
	socket, endpoint, stop := startDaemon()
	defer stop()
	ctx := context.Background()
	remote, err := client.Dial(ctx, client.Options{Endpoint: endpoint, Compress: true})
	if err != nil {
		log.Fatal(err)
	}
	defer remote.Close()
	id, err := remote.PutBlob(ctx, []byte("from far away"))
	if err != nil {
		log.Fatal(err)
	}

	local, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer local.Close()
	blob, err := local.GetBlob(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s; shared memory: %v, %v\n", blob.Bytes(), remote.Info().Local, local.Info().Local)
	// Output: from far away; shared memory: false, true
}

// Watch needs a v6d daemon and a connection of its own.
func ExampleClient_Watch() {
	socket, _, stop := startDaemon()
	defer stop()
	ctx := context.Background()
	watcher, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer watcher.Close()
	events := watcher.Watch(ctx, "demo::*") // what comes from now on

	c, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	id, err := c.CreateObject(ctx, client.NewMeta("demo::Thing"))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Delete(ctx, []client.ID{id}, client.DeleteOptions{}); err != nil {
		log.Fatal(err)
	}

	for e, err := range events {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Kind, e.Type, e.ID == id)
		if e.Kind == "deleted" {
			break
		}
	}
	// Output:
	// created demo::Thing true
	// deleted demo::Thing true
}

// Chunks go from one writer to one reader; the writer waits while memory is
// short.
func ExampleClient_NextChunk() {
	socket, _, stop := startDaemon()
	defer stop()
	ctx := context.Background()
	writer, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer writer.Close()
	stream, err := writer.CreateObject(ctx, client.NewMeta("demo::Stream"))
	if err != nil {
		log.Fatal(err)
	}
	if err := writer.CreateStream(ctx, stream); err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		chunk, err := writer.NextChunk(ctx, stream, len(text))
		if err != nil {
			log.Fatal(err)
		}
		copy(chunk, text)
	}
	if err := writer.StopStream(ctx, stream, false); err != nil {
		log.Fatal(err)
	}

	reader, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()
	for {
		id, err := reader.PullChunk(ctx, stream) // deletes the chunk before
		if errors.Is(err, client.Drained) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		chunk, err := reader.GetBlob(ctx, id)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", chunk.Bytes())
	}
	// Output:
	// one
	// two
}
